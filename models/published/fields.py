"""Reading of config.json: each value is checked when it is asked for, and what nobody asked for is refused.

A key that a family does not ask for may still change results, so `Fields.refuse_others` accepts it only if
    - its value is that of the family's defaults, or
    - the family lists it as irrelevant, or it is in BOOKKEEPING, which holds for every family, or
    - it is null and the family's defaults do not know it: that says nothing.
"""

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import UserError

BOOKKEEPING = frozenset(
    (
        # where the file comes from
        "_attn_implementation _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures "
        "attn_implementation auto_map model_type transformers_version unsloth_fixed unsloth_version "
        # training and storage: weights are read in float32, whatever their type on disk
        "chunk_size_feed_forward dtype gradient_checkpointing initializer_range return_dict torch_dtype torchscript "
        "use_bfloat16 "
        # generation and tokens: `tokenizer.end_tokens` reads eos_token_id
        "bos_token_id cache_implementation decoder_start_token_id do_sample eos_token_id is_decoder "
        "is_encoder_decoder max_length min_length output_attentions output_hidden_states pad_token_id prefix "
        "sep_token_id temperature tokenizer_class top_k top_p use_cache "
        # heads of other tasks
        "finetuning_task id2label label2id problem_type task_specific_params"
    ).split()
)
"""Keys that no model's results depend on."""


@dataclass(frozen=True)
class Fields:
    """The values of a config by name; asking for one checks it, and names file, key and value if it does not fit.

    A key that the file lacks has the value of `defaults`.
    """

    path: Path
    given: Mapping[str, Any]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    asked: set[str] = field(default_factory=set)

    def get(self, name: str) -> Any:
        """Return a value unchecked; None for one that neither file nor defaults have."""
        self.asked.add(name)
        return self.given.get(name, self.defaults.get(name))

    def error(self, name: str, expected: str) -> UserError:
        """Return the UserError for a value that its key does not allow."""
        return UserError(f"{self.path}: {self.prefix}{name}: expected {expected}, got {self.excerpt(name)}")

    def excerpt(self, name: str) -> str:
        """Return a value as JSON writes it, cut to a line."""
        if name not in self.given and name not in self.defaults:
            return "none"
        text = json.dumps(self.get(name))
        return text if len(text) <= 60 else f"{text[:57]}..."

    def refuse_others(self, irrelevant: Collection[str] = ()) -> None:
        """Raise UserError for a key of the file that was not asked for and may change results (see the module)."""
        for name in self.given:
            if name in self.asked or name in BOOKKEEPING or name in irrelevant:
                continue
            if name in self.defaults and self.given[name] != self.defaults[name]:
                raise self.error(name, f"{json.dumps(self.defaults[name])}, since there is no code for another value")
            if name not in self.defaults and self.given[name] is not None:
                raise self.error(name, "no such option, since there is no code for it")

    def size(self, name: str, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self.error(name, f"a whole number of at least {least}")
        return value

    def number(self, name: str) -> float:
        """Return a finite number of at least 0."""
        value = self.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= sys.float_info.max:
            raise self.error(name, "a number of at least 0")
        return float(value)

    def positive(self, name: str) -> float:
        """Return a finite number above 0."""
        value = self.number(name)
        if value == 0:
            raise self.error(name, "a number above 0")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false."""
        value = self.get(name)
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def one_of(self, name: str, *choices: Any) -> Any:
        """Return a value that must be one of the supported ones."""
        if self.get(name) not in choices:
            raise self.error(name, " or ".join(json.dumps(value) for value in choices))
        return self.get(name)

    def divisor(self, name: str, of: int, unit: str) -> int:
        """Return a size that divides another."""
        value = self.size(name)
        if of % value:
            raise self.error(name, f"a divisor of {of} {unit}")
        return value


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a readable file, got: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: expected JSON, got: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(config).__name__}")
    return config
