"""Text, byte by byte: predict the next of 256 bytes.

The default corpus is the language reference that every CPython carries, `pydoc_data.topics`: some 370,000
characters of English once the paragraphs that its topics repeat are dropped (a repeated paragraph in both parts
of the split would let a model answer from memory). It changes with the Python version, so results name its hash.
"""

from codecs import getincrementaldecoder
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

from models.errors import UserError

Batch = tuple[np.ndarray, np.ndarray]

BLOCK = 4096  # bytes that stay together on one side of the split
PARTS = 10  # every tenth block is held out
ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


@dataclass(frozen=True)
class Text:
    """A corpus cut once, by position alone, into a training part and a held-out part, both `uint8`."""

    train: np.ndarray
    held_out: np.ndarray
    digest: str
    length: int
    vocabulary: int = 256

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, length)`: random windows and the same windows one byte later."""
        return _windows(self.train, rng.integers(0, len(self.train) - self.length, size=batch), self.length)

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return one batch from the held-out part: always the same windows, evenly spaced, at most 64."""
        room = len(self.held_out) - self.length
        starts = np.linspace(0, room - 1, num=min(64, -(-room // self.length))).astype(np.int64)
        return {"text": _windows(self.held_out, starts, self.length)}


def _windows(data: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    rows = data[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return rows[:, :-1], rows[:, 1:]


def load(path: str | Path | None = None, *, length: int) -> Text:
    """Read the corpus and split it: blocks of 4096 bytes (a tenth of a shorter text), every tenth held out.

    Raises: UserError when the file cannot be read, is not UTF-8, or has no room for a window of `length` in a tenth.
    """
    data, name = (_reference(), "pydoc_data.topics") if path is None else (_read(Path(path)), str(path))
    needed = PARTS * (length + 1)
    if len(data) < needed:
        raise UserError(f"text {name}: expected at least {PARTS} × (length + 1) = {needed} bytes, got {len(data)}")
    block = max(length + 1, min(BLOCK, len(data) // PARTS))  # one block must hold a window
    array = np.frombuffer(data, dtype=np.uint8)
    held_out = (np.arange(len(array)) // block) % PARTS == PARTS - 1
    return Text(array[~held_out], array[held_out], sha256(data).hexdigest()[:12], length)


def encode(text: str) -> np.ndarray:
    """Return the bytes of `text` as tokens `(T,)`; a byte of the command line that is no UTF-8 stands for itself.

    Raises: UserError for a surrogate that stands for no byte.
    """
    try:
        data = text.encode(errors="surrogateescape")  # as Python decodes the command line
    except UnicodeEncodeError as error:
        raise UserError(f"text: expected characters, got half of one, {text[error.start]!a} at {error.start}") from None
    return np.frombuffer(data, dtype=np.uint8).astype(np.int64)


def whole_characters(argument: str, option: str = "--prompt") -> str:
    """Return a command-line argument, with the bytes that Python's locale did not decode decoded as UTF-8.

    Raises: UserError where they are none.
    """
    try:
        return argument.encode(errors="surrogateescape").decode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        byte = error.object[error.start : error.start + 1]
        raise UserError(f"{option}: expected UTF-8, got {byte!a} at {error.start}") from None


def decode(tokens: np.ndarray) -> str:
    """Return the text of byte tokens `(T,)`; a byte that starts no character becomes '�'."""
    return bytes(np.asarray(tokens, dtype=np.uint8)).decode(errors="replace")


def printable(text: str) -> str:
    """Return `text` with control characters escaped, as `\\x00`, so that a terminal does not interpret them."""
    return text.translate(ESCAPED)


class Detokenizer:
    """Incremental decoding of byte tokens: bytes are held back until their character is complete."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")

    def add(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Return the characters that these tokens `(T,)` complete."""
        return self._decoder.decode(bytes(np.asarray(tokens, dtype=np.uint8)))

    def flush(self) -> str:
        """Return '�' for an incomplete character at the end, else nothing."""
        return self._decoder.decode(b"", final=True)


def _reference() -> bytes:
    first: dict[str, str] = {}  # a paragraph by its words: topics repeat each other's with other indentation
    for topic in sorted(topics):
        for paragraph in topics[topic].split("\n\n"):
            first.setdefault(" ".join(paragraph.split()), paragraph)
    return "\n\n".join(first.values()).encode()


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"text {path}: expected a readable file, got: {error.strerror}") from None
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"text {path}: expected UTF-8, got byte 0x{data[error.start]:02x} at {error.start}") from None
    return data
