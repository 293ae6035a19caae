"""The tokenizer of a published model: end-of-text tokens, and incremental detokenization."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.published.fields import Fields, read_json
from models.published.world_tokenizer import VOCABULARY, WorldTokenizer

REPLACEMENT = "\ufffd"  # U+FFFD, to which incomplete characters are decoded
SENTENCEPIECE = ("source.spm", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model")


def load_tokenizer(folder: str | Path) -> Any:
    """Return the folder's tokenizer, with `encode(text).ids` and `decode(ids)`: tokenizer.json, else RWKV's vocabulary.

    Raises: UserError when there is no such file, it is broken, or the `tokenizers` library is missing.
    """
    path, world = Path(folder) / "tokenizer.json", Path(folder) / VOCABULARY
    if world.is_file() and not path.is_file():
        return WorldTokenizer(world)
    if not path.is_file():
        other = next((name for name in SENTENCEPIECE if (path.parent / name).is_file()), None)
        missing = f"only SentencePiece's {other}, which must be converted first" if other else "no such file"
        raise UserError(f"{path}: expected a tokenizer there or in {VOCABULARY}, got {missing}")
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        hint = "which the extra 'published' installs: pip install -e '.[published]'"
        raise UserError(f"tokenizer.json: expected tokenizers, {hint}") from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exceptions
        raise UserError(f"{path}: expected a tokenizer, got: {error}") from None


def require_one_vocabulary(folder: str | Path) -> None:
    """Raise a UserError where source and target have vocabularies of their own, for tokenizer.json has one."""
    path = Path(folder) / "tokenizer_config.json"
    fields = Fields(path, read_json(path) if path.exists() else {}, {"separate_vocabs": False})
    if fields.get("separate_vocabs"):
        raise fields.error("separate_vocabs", "false, since tokenizer.json has one vocabulary")


def encode_prompt(tokenizer: Any, prompt: str, vocabulary: int, option: str = "--prompt") -> list[int]:
    """Return the prompt's tokens, with the special tokens that the tokenizer adds; errors name the option it is from.

    Raises: UserError for a prompt that becomes no token, and for tokens that the model does not have.
    """
    ids = list(tokenizer.encode(prompt).ids)
    if not ids:
        raise UserError(f"{option}: expected text that becomes at least one token, got {prompt!r}, which becomes none")
    if max(ids) >= vocabulary:
        token = tokenizer.id_to_token(max(ids))
        raise UserError(f"{option}: expected tokens below vocab_size {vocabulary}, got {max(ids)} ({token!r})")
    return ids


def end_tokens(folder: str | Path, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text, from the first file that names any.

    transformers looks into generation_config.json and only where there is none into config.json. Here a file that is
    silent is passed over, and last comes the tokenizer's own, which tokenizer_config.json names.

    Raises: UserError where a file names what is no token.
    """
    folder = Path(folder)
    generation, config, about = (
        Fields(path, read_json(path) if path.exists() else {})
        for path in (folder / f"{name}.json" for name in ("generation_config", "config", "tokenizer_config"))
    )
    return _ids(generation) or _ids(config) or _eos_token_id(about, tokenizer)


def _ids(fields: Fields) -> frozenset[int]:
    value = fields.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
        raise fields.error("eos_token_id", "a token or a list of them")
    return frozenset(ids)


def _eos_token_id(fields: Fields, tokenizer: Any) -> frozenset[int]:
    if isinstance(tokenizer, WorldTokenizer):
        return frozenset([tokenizer.end])
    value = fields.get("eos_token")
    if isinstance(value, dict):
        value = value.get("content")
    token = tokenizer.token_to_id(value) if isinstance(value, str) else None
    return frozenset() if token is None else frozenset([token])


class Detokenizer:
    """Incremental conversion of tokens after a prompt to text, without special tokens.

    A token's text depends on those before it (spaces, characters of several tokens), so it is what decoding adds when
    the token is appended to them. Only as many are decoded again as the last text took, so the cost does not grow.
    What is shown stays, also where a decoder would take it back (ByteFallback, when an invalid byte follows).
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer, self._tokens, self._shown = tokenizer, list(prompt), len(prompt)
        self._before = tokenizer.decode(self._tokens)

    def add(self, tokens: Sequence[int]) -> str:
        """Return the text that these tokens complete; an incomplete character is held back."""
        self._tokens.extend(tokens)
        text = self._tokenizer.decode(self._tokens)
        if text.endswith(REPLACEMENT) or len(text) <= len(self._before):
            return ""
        completed = text[len(self._before) :]
        self._tokens = self._tokens[self._shown :]
        self._shown, self._before = len(self._tokens), self._tokenizer.decode(self._tokens)
        return completed

    def flush(self) -> str:
        """Return the text of an incomplete character at the end."""
        return self._tokenizer.decode(self._tokens)[len(self._before) :]
