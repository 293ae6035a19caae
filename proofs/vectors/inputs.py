"""The cases of the vectors, and their inputs: multiples of 1/4096, which float32 holds, from a formula in integers.

    seed    the first 8 bytes, little-endian, of SHA-256 of "VERSION NAME CASE" in ASCII
    xᵢ      SplitMix64 (Steele, Lea and Flood 2014) from that seed, i = 0, 1, …
    nᵢ      low + ⌊⌊xᵢ / 2³²⌋ (high − low) / 2³²⌋, an integer, low ≤ nᵢ < high

`proofs.port.cases` turns the nᵢ into arrays: it draws the arguments in order, then the state. NumPy's generators take
no part, since their numbers may change with its version.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from proofs.checker.forms import Form
from proofs.port.cases import LONG, Case, Example, Inputs

VERSION = 1  # of the vectors: it changes with any byte of a file of numbers

CHUNK = 4  # the size of mini-batches, which is a part of some mechanisms
GRAIN = 4096

CASES = {
    case.name: case
    for case in (
        Case("one_token", lambda chunk: 1),
        Case("short"),
        Case("start_state", state=True),
        Case("shut_gate", gate=0.0),
        Case("open_gate", gate=1.0),
        Case("repeated_keys", repeats=True),
        Case("long", lambda chunk: LONG, large=True),
    )
}
DESCRIPTIONS = {
    "one_token": "a sequence of one token",
    "short": "7 tokens",
    "start_state": "7 tokens from a state that is not the mechanism's own beginning",
    "shut_gate": "7 tokens, of which every third has a gate of 0: the logarithm −∞, or the rate 0",
    "open_gate": "7 tokens whose gates are 1: the logarithm 0, or the rate 1",
    "repeated_keys": "7 tokens, of which the keys come in equal pairs",
    "long": f"one sequence of {LONG} tokens: two whole chunks of 64 and 3 tokens",
}

_MASK = 2**64 - 1


class SplitMix:
    """Steele, Lea and Flood's generator of 64-bit integers."""

    def __init__(self, seed: int):
        self.state = seed

    def next(self) -> int:
        """Return the next integer, 0 ≤ x < 2⁶⁴."""
        self.state = self.state + 0x9E3779B97F4A7C15 & _MASK
        x = self.state
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        return x ^ x >> 31

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> np.ndarray:
        """Return integers from low to high − 1."""
        drawn = [low + ((self.next() >> 32) * (high - low) >> 32) for _ in range(int(np.prod(size)))]
        return np.array(drawn, dtype=np.int64).reshape(size)


@dataclass(frozen=True)
class _Seeded(Example):
    """An example whose numbers come from the formula above."""

    def generator(self, seed: int) -> Any:
        return SplitMix(seed)


def seed_of(label: str) -> int:
    """Return the seed of a label."""
    return int.from_bytes(hashlib.sha256(label.encode("ascii")).digest()[:8], "little")


def draw(form: Form, name: str, case: Case) -> Inputs:
    """Return the inputs of a case of the vectors of this name."""
    return example(form).draw(case, seed_of(f"{VERSION} {name} {case.name}"))


def example(form: Form) -> Example:
    """Return the sampler of a form's inputs."""
    return _Seeded(form, (2, 3), CHUNK, grain=GRAIN)


def cases(form: Form) -> list[Case]:
    """Return the cases that say something about a form."""
    sampler = example(form)
    return [case for case in CASES.values() if not sampler.applies(case, takes_state=True, fixed_batch=False)]
