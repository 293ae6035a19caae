"""RWKV's World tokenizer: greedy longest match of the UTF-8 bytes against a vocabulary file.

Its file has a token a line: the index, the token as a Python literal of str or bytes, and its length in bytes. All 256
bytes are tokens, so every text can be encoded. Index 0 is in no line: it ends a text.
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from models.errors import UserError

VOCABULARY = "rwkv_vocab_v20230424.txt"


class Encoding(NamedTuple):
    """The tokens of a text, under the name that the library `tokenizers` has for them."""

    ids: list[int]


class WorldTokenizer:
    """The tokenizer of a vocabulary file, called as those of the library `tokenizers`.

    Raises: UserError when the file cannot be read, at the first line that is no new token, or if a byte is none.
    """

    end = 0

    def __init__(self, path: Path) -> None:
        self._token_of = _read(path)
        self._index_of = {token: index for index, token in self._token_of.items()}
        lengths: list[set[int]] = [set() for _ in range(256)]  # of the tokens that begin with a byte
        for token in self._index_of:
            lengths[token[0]].add(len(token))
        self._lengths = [sorted(of_byte, reverse=True) for of_byte in lengths]
        for byte in range(256):
            if bytes([byte]) not in self._index_of:
                raise UserError(f"{path}: expected a token for every byte, got none for {bytes([byte])!r}")

    def encode(self, text: str) -> Encoding:
        """Return the tokens of a text."""
        data, at, ids = text.encode(), 0, []
        while at < len(data):
            candidates = (data[at : at + length] for length in self._lengths[data[at]])
            token = next(token for token in candidates if token in self._index_of)
            ids.append(self._index_of[token])
            at += len(token)
        return Encoding(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with U+FFFD where it is no UTF-8; an index that is in no line has no text."""
        return b"".join(self._token_of.get(index, b"") for index in ids).decode(errors="replace")

    def id_to_token(self, index: int) -> str:
        """Return the text of a token."""
        return self.decode([index])


def _read(path: Path) -> dict[int, bytes]:
    """Return the tokens of a file by index."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a readable vocabulary in UTF-8, got: {error}") from None
    tokens: dict[int, bytes] = {}
    seen = set()
    for number, line in enumerate(lines, start=1):
        try:
            index, token = _parse(line)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            expected = "an index of at least 1, a literal and its length in bytes"
            raise UserError(f"{path}: line {number}: expected {expected}, got {line[:60]!r}") from None
        if index in tokens or token in seen:
            raise UserError(f"{path}: line {number}: expected an index and a token for the first time, got {line!r}")
        tokens[index] = token
        seen.add(token)
    return tokens


def _parse(line: str) -> tuple[int, bytes]:
    """Return the index and the token of a line; raises ValueError or what `ast.literal_eval` raises."""
    index, rest = line.split(" ", 1)
    literal, length = rest.rsplit(" ", 1)
    token = ast.literal_eval(literal)
    token = token.encode() if isinstance(token, str) else token
    if not isinstance(token, bytes) or not token or len(token) != int(length) or int(index) < 1:
        raise ValueError(line)
    return int(index), token
