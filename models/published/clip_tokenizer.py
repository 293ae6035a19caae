"""CLIP's byte-pair tokenizer: captions to tokens, from tokenizer.json, or vocab.json and merges.txt.

    <|startoftext|>  pieces of words  <|endoftext|>  padding

Text is brought to NFC and lower case, white space becomes one space, and what is between is cut into contractions, runs
of letters, single digits and runs of other symbols, as transformers does; OpenAI's code also repairs mis-encoded text
and HTML entities. The bytes of each are joined pair by pair in the order of the merges, the last symbol of a
word being another than within. The end token is also the padding, and the model reads the first of them.

So a text that has an end token inside would be read up to there. A caption that spells it, and one with a character
that a vocabulary has no token for, which becomes an end token too, is an error here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import UserError
from models.published.tokenizer import load_tokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Tokens of captions, at most `context` each, for a model whose vocabulary has `vocab` tokens."""

    def __init__(self, tokenizer: Any, vocab: int, context: int) -> None:
        self.tokenizer, self.vocab, self.context = tokenizer, vocab, context
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokens = [tokenizer.token_to_id(name) for name in (START, END)]
        if None in tokens:
            missing = (START, END)[tokens.index(None)]
            raise UserError(f"tokenizer: expected the tokens {START} and {END}, got no {missing}")
        self.start, self.end = tokens

    def encode(self, captions: Sequence[str], *, truncate: bool = False) -> np.ndarray:
        """Return tokens (n, T), padded with end tokens to the longest; with `truncate` the end of a long one is cut.

        Raises: UserError for no caption, an empty one, an end token inside one, an unknown character, a token that the
        model does not have, and, without `truncate`, for more tokens than the context.
        """
        if isinstance(captions, str) or len(captions) == 0:
            raise UserError(f"captions: expected a list of at least one, got {captions!r}")
        rows = [self._tokens(caption, truncate) for caption in captions]
        length = max(map(len, rows))
        return np.array([row + [self.end] * (length - len(row)) for row in rows])

    def _tokens(self, caption: str, truncate: bool) -> list[int]:
        if not isinstance(caption, str):
            raise UserError(f"caption: expected text, got {type(caption).__name__}")
        encoding = self.tokenizer.encode(caption)
        ids = list(encoding.ids)
        if len(ids) < 2 or ids[0] != self.start or ids[-1] != self.end:
            raise UserError(f"tokenizer: expected {START} … {END} around a caption, got {encoding.tokens}")
        inside = ids[1:-1]
        if not inside:
            raise UserError(f"caption {caption!r}: expected at least one word, got none")
        if self.end in inside:
            first, last = encoding.offsets[1 + inside.index(self.end)]
            got = caption[first:last] or caption
            raise UserError(f"caption {caption!r}: expected characters that the vocabulary has tokens for, got {got!r}")
        if max(ids) >= self.vocab:
            got = f"{max(ids)} ({self.tokenizer.id_to_token(max(ids))!r})"
            raise UserError(f"caption {caption!r}: expected tokens below vocab_size {self.vocab}, got {got}")
        if len(ids) > self.context and not truncate:
            expected = f"at most {self.context} tokens, the context, with start and end"
            raise UserError(f"caption {caption[:40]!r}…: expected {expected}, got {len(ids)}")
        return ids if len(ids) <= self.context else [*ids[: self.context - 1], self.end]


def load(folder: str | Path, vocab: int, context: int) -> ClipTokenizer:
    """Return the tokenizer of a folder: tokenizer.json, else made of vocab.json and merges.txt.

    Raises: UserError when there are no such files, one is broken, or the `tokenizers` library is missing.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").is_file():
        return ClipTokenizer(load_tokenizer(folder), vocab, context)
    files = [folder / name for name in ("vocab.json", "merges.txt")]
    for path in files:
        if not path.is_file():
            both = " and ".join(path.name for path in files)
            raise UserError(f"{path}: expected a tokenizer in tokenizer.json, or in {both}, got no such file")
    try:
        from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    except ModuleNotFoundError:
        hint = "which the extra 'published' installs: pip install -e '.[published]'"
        raise UserError(f"{files[0]}: expected tokenizers, {hint}") from None
    try:
        pairs = models.BPE.from_file(*map(str, files), unk_token=END, end_of_word_suffix="</w>")
        tokenizer = Tokenizer(pairs)
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"{files[0]}, {files[1].name}: expected a vocabulary and its merges, got: {error}") from None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    start, end = (tokenizer.token_to_id(name) for name in (START, END))
    if start is None or end is None:
        raise UserError(f"{files[0]}: expected the tokens {START} and {END}, got no {START if start is None else END}")
    tokenizer.add_special_tokens([START, END])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, end), (START, start), trim_offsets=False, add_prefix_space=False
    )
    return ClipTokenizer(tokenizer, vocab, context)
