"""The worker processes of `python -m proofs check`; a spawned process cannot import `__main__`."""

import os
import signal
import threading
import time

import proofs
from proofs.checker import Result, check_statement


def initialize(parent: int) -> None:
    """Ignore Ctrl-C, which the parent handles, and exit when the parent exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_one(name: str, profile: str) -> Result:
    """Check the statement of that name."""
    return check_statement(proofs.STATEMENTS[name], profile)
