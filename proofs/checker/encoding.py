"""Examples as plain text and back: one spelling for failures, JSON files and snippets.

A number is written as a fraction ("1/2"), an argument that is a logarithm as the numbers it is the logarithm of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from proofs.checker.strategies import Drawn, tree_map


def plain(example: Any) -> Any:
    """Nested lists of integers and of fractions written as strings."""
    if isinstance(example, np.ndarray):
        return plain(example.tolist())
    if isinstance(example, Mapping):
        return {key: plain(value) for key, value in example.items()}
    if isinstance(example, (list, tuple)):
        return [plain(value) for value in example]
    if isinstance(example, Fraction):
        return example.numerator if example.denominator == 1 else str(example)
    return example


def dumps(example: Mapping[str, Any]) -> str:
    return json.dumps(plain(example))


def exact(spelled: Any) -> np.ndarray:
    """An array of fractions from nested lists of numbers or strings."""
    given = np.array(spelled, dtype=object)
    return np.fromiter(map(Fraction, given.flat), dtype=object).reshape(given.shape)


def restored(spelled: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The example that `plain` spelled, for arguments drawn as `wanted` says."""

    def one(drawn: Drawn, value: Any) -> Any:
        return value if drawn.fill is None else exact(value)

    return tree_map(one, wanted, spelled)


def loads(text: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    return restored(json.loads(text), wanted)
