"""Encode examples as JSON and decode them, for failures, JSON files and snippets.

A number is written as a fraction ("1/2"), an argument that is a logarithm as the numbers it is the logarithm of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from proofs.checker.strategies import Strategy, tree_map


def encode(example: Any) -> Any:
    """Return nested lists of integers and of fractions written as strings."""
    if isinstance(example, Fraction):
        return example.numerator if example.denominator == 1 else str(example)
    if isinstance(example, (list, tuple)):
        return [encode(value) for value in example]
    if isinstance(example, np.ndarray):
        return encode(example.tolist())
    if isinstance(example, Mapping):
        return {key: encode(value) for key, value in example.items()}
    return example


def dumps(example: Mapping[str, Any]) -> str:
    return json.dumps(encode(example))


def exact(encoded: Any) -> np.ndarray:
    """Return an array of fractions from nested lists of numbers or strings."""
    array = np.array(encoded, dtype=object)
    return np.fromiter(map(Fraction, array.flat), dtype=object).reshape(array.shape)


def decode(encoded: Mapping[str, Any], strategies: Mapping[str, Any]) -> dict[str, Any]:
    """Return the example that `encode` was given, for arguments drawn as `strategies` says."""

    def decode_one(strategy: Strategy, value: Any) -> Any:
        return value if strategy.fill is None else exact(value)

    return tree_map(decode_one, strategies, encoded)


def loads(text: str, strategies: Mapping[str, Any]) -> dict[str, Any]:
    return decode(json.loads(text), strategies)
