"""Decoding options of a published encoder–decoder, from generation_config.json, or config.json if there is none.

Greedy decoding is that of transformers' `generate` with `num_beams` 1: `bad_words_ids` of one token never come, and
`forced_eos_token_id` is the last token that `max_length` has room for, the start counted. A beam search is that of
`models.language.decoding` with the score of transformers, Σ log p / |Y|^`length_penalty`. Deviation: a text that has
ended leaves the beam, which is narrower from then on; theirs stays as wide, and `early_stopping` says until when. Their
texts may differ from ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.published.fields import Fields, read_json

TOKENS = ("pad_token_id", "decoder_start_token_id", "eos_token_id", "forced_eos_token_id")
DEFAULTS: dict[str, Any] = {
    "max_length": None,
    "max_new_tokens": None,
    "num_beams": 1,
    "length_penalty": 1.0,
    "bad_words_ids": None,
    "forced_eos_token_id": None,
    # there is no code for other values of these
    "begin_suppress_tokens": None,
    "constraints": None,
    "diversity_penalty": 0.0,
    "do_sample": False,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "exponential_decay_length_penalty": None,
    "force_words_ids": None,
    "forced_bos_token_id": None,
    "guidance_scale": None,
    "min_length": 0,
    "min_new_tokens": None,
    "no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "penalty_alpha": None,
    "repetition_penalty": 1.0,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
}
"""Defaults of transformers' `generate`."""
TOKENS_BY_DEFAULT = 20  # where there is neither a max_length nor max_new_tokens, or as many as positions allow
IRRELEVANT = frozenset(
    (
        # sampling's, time and memory, what is returned besides the tokens; banned tokens have p = 0 before Σ p is 1
        "early_stopping epsilon_cutoff eta_cutoff max_time min_p output_logits output_scores renormalize_logits "
        "remove_invalid_values return_dict_in_generate typical_p _from_model_config"
    ).split()
)


@dataclass(frozen=True)
class Generation:
    """Special tokens and limits of a target: at most `tokens` after the start, and the texts that a search keeps."""

    pad: int
    start: int
    end: int
    tokens: int
    banned: tuple[int, ...]
    must_end: bool
    beam: int
    length_penalty: float

    def penalty(self, length: int) -> float:
        """Return |Y|^`length_penalty`, by which Σ log p of a text of |Y| tokens is divided."""
        return float(length) ** self.length_penalty


def read(folder: Path, vocab: int, positions: int) -> Generation:
    """Return the rules of a folder, for a target of this vocabulary with so many positions.

    Raises: UserError for a value that is none, or that there is no code for.
    """
    path = folder / "generation_config.json"
    config = read_json(folder / "config.json")
    if path.exists():
        given = {name: config[name] for name in TOKENS[:-1] if name in config} | read_json(path)
    else:
        path = folder / "config.json"
        given = {name: value for name, value in config.items() if name in DEFAULTS or name in TOKENS}
    # transformers takes null for its default
    fields = Fields(path, {name: value for name, value in given.items() if value is not None}, DEFAULTS)
    pad, start, end = (_token(fields, name, vocab) for name in TOKENS[:-1])
    if fields.get("forced_eos_token_id") not in (None, end):
        raise fields.error("forced_eos_token_id", f"null or eos_token_id {end}")
    for name in ("do_sample", "min_length"):  # which `refuse_others` accepts
        fields.one_of(name, DEFAULTS[name])
    rules = Generation(
        pad=pad,
        start=start,
        end=end,
        tokens=_tokens(fields, positions),
        banned=_banned(fields, end, vocab),
        must_end=fields.get("forced_eos_token_id") is not None,
        beam=fields.size("num_beams"),
        length_penalty=_exponent(fields),
    )
    fields.refuse_others(IRRELEVANT)
    return rules


def _token(fields: Fields, name: str, vocab: int) -> int:
    value = fields.get(name)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab:
        raise fields.error(name, f"one token from 0 to {vocab - 1}")
    return value


def _tokens(fields: Fields, positions: int) -> int:
    """Return the most tokens after the start; the last of them is not read, so the start's position is free for one."""
    longest = None if fields.get("max_length") is None else fields.size("max_length", least=2) - 1
    if fields.get("max_new_tokens") is not None:
        return min(fields.size("max_new_tokens"), positions)
    return min(TOKENS_BY_DEFAULT, max(1, positions - 1)) if longest is None else min(longest, positions)


def _banned(fields: Fields, end: int, vocab: int) -> tuple[int, ...]:
    """Return the tokens that never come; transformers lets the end token come, though it be named."""
    words = fields.get("bad_words_ids") or []
    if not isinstance(words, list) or not all(isinstance(word, list) and len(word) == 1 for word in words):
        raise fields.error("bad_words_ids", "lists of one token, since there is no code for words of several")
    tokens = [token for (token,) in words]
    if not all(isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocab for token in tokens):
        raise fields.error("bad_words_ids", f"tokens from 0 to {vocab - 1}")
    return tuple(token for token in tokens if token != end)


def _exponent(fields: Fields) -> float:
    value = fields.get("length_penalty")
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 100:
        raise fields.error("length_penalty", "a number from −100 to 100")
    return float(value)
