"""Escaping of characters that a terminal cannot show."""

import io
import sys


def escape_unencodable() -> None:
    """Let stdout show characters that its encoding lacks as escapes, such as \\u2192, where Python would raise."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
