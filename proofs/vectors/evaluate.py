"""Results and gradients of a form in `arithmetic`, rounded once, and the error that a port may have.

The gradient is that of Re Σ c r over the entries r of y and of the final state, with the cotangents c; of a complex
argument it is Jᴴ c, as in PyTorch and minigrad, the conjugate of what JAX returns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.engine import unwrap
from proofs.checker.forms import Form, forms
from proofs.port.cases import Case, Inputs
from proofs.port.forms import full_name
from proofs.port.frameworks import PRECISIONS
from proofs.port.reference import Arrays, Expected, leaves, rebuild, result_names
from proofs.vectors import arithmetic
from proofs.vectors.inputs import SplitMix, draw, seed_of

# Beside the 8 of `Expected.tolerance`: a port of any form is compared with the plainest one, and those by Fourier
# transforms round more than it does (S4's convolution of one token 20 times as much).
OTHER_FORMS = 4


@dataclass(frozen=True)
class Subject:
    """A mechanism with one choice of its shapes: the name of its files, its plainest form, and all its forms."""

    name: str
    mechanism: str
    variant: str
    form: Form
    forms: tuple[str, ...]


@dataclass(frozen=True)
class Vector:
    """The numbers of a case: inputs, results, cotangents and gradients by name, and tolerances of what is compared."""

    inputs: Inputs
    arrays: Arrays
    tolerances: dict[str, dict[str, float]]
    counts: dict[str, int]  # tokens left of a mini-batch, in the initial and the final state


def subjects() -> dict[str, Subject]:
    """Return all subjects by name: memory.delta_rule, memory.gated_delta_rule.log_decay_T_K, …"""
    found: dict[str, list[Form]] = {}
    for form in forms():
        mechanism, variant = full_name(form).rpartition(".")[0], ".".join(form.name.split(".")[2:])
        found.setdefault(".".join(filter(None, (mechanism, variant.replace(" ", "_")))), []).append(form)
    return {
        name: Subject(
            name,
            full_name(members[0]).rpartition(".")[0],
            ".".join(members[0].name.split(".")[2:]),
            next(form for form in members if not form.compiled),
            tuple(form.function.__name__ for form in members),
        )
        for name, members in found.items()
    }


def evaluate(subject: Subject, case: Case, *, bits: int = arithmetic.EXACT) -> Vector:
    """Return the vector of a case, computed with numbers of `bits` bits."""
    inputs = draw(subject.form, subject.name, case)
    cotangents: Arrays = {}
    results = [_run(subject.form, inputs, n, cotangents, subject.name, case) for n in (bits, arithmetic.SINGLE)]
    (values, gradients, counts), (short_values, short_gradients, _) = results
    errors = {name: _error(x, short_values[name]) for name, x in values.items()}
    errors |= {f"gradient of {name}": _error(x, short_gradients[name]) for name, x in gradients.items()}
    expected = Expected(values, gradients, errors)
    named = dict(_named(subject.form, inputs, cotangents, expected))
    return Vector(
        inputs,
        {name: x for name, (x, _) in named.items()},
        {name: _tolerances(expected, label) for name, (_, label) in named.items() if label},
        counts,
    )


def _run(
    form: Form, inputs: Inputs, bits: int, cotangents: Arrays, name: str, case: Case
) -> tuple[Arrays, Arrays, dict[str, int]]:
    """Return results and gradients in float64, rounded from so many bits; the first call draws cotangents."""
    names, first = list(inputs.arrays), leaves(inputs.state)
    given = [*inputs.arrays.values(), *first]
    counts: dict[str, int] = {}

    def call(*args: Any) -> list[Any]:
        state = None if inputs.state is None else rebuild(inputs.state, args[len(names) :])
        y, after = form(dict(zip(names, args, strict=False)), state, inputs.chunk)
        counts.update(
            {f"{when}_tokens_left": n for when, s in (("initial", state), ("final", after)) for n in _counts(s)}
        )
        return [y, *leaves(after)]

    results, pull = mg.vjp(call, *(arithmetic.numbers(x, bits) for x in given))
    labels = result_names(form)
    complex_results = [_is_complex(x) for x in results]
    values = {
        label: arithmetic.rounded(np.asarray(x), is_complex=c)
        for label, x, c in zip(labels, results, complex_results, strict=True)
    }
    if not cotangents:
        cotangents.update(_draw_cotangents(values, f"{name} {case.name}"))
    pulled = pull([arithmetic.numbers(cotangents[label], bits) for label in values])
    arguments = [*names, *(labels[1:] if inputs.state is not None else [])]
    gradients = {
        label: arithmetic.rounded(np.asarray(unwrap(g)), is_complex=x.dtype.kind == "c")
        for label, x, g in zip(arguments, given, pulled, strict=True)
    }
    return values, gradients, counts


def _draw_cotangents(values: Arrays, label: str) -> Arrays:
    """Return −2, −1, 1 or 2 for each entry of each result, and the same for its imaginary part."""
    rng = SplitMix(seed_of(f"{label} cotangents"))

    def numbers(shape: tuple[int, ...]) -> np.ndarray:
        return np.array([-2.0, -1.0, 1.0, 2.0])[rng.integers(0, 4, shape)]

    return {
        name: numbers(x.shape) + 1j * numbers(x.shape) if x.dtype.kind == "c" else numbers(x.shape)
        for name, x in values.items()
    }


def _named(
    form: Form, inputs: Inputs, cotangents: Arrays, expected: Expected
) -> Iterator[tuple[str, tuple[np.ndarray, str]]]:
    """Yield the name of each array in the files, the array, and the label of its tolerance, "" for what is given."""
    names = result_names(form)[1:]
    yield from ((name, (x, "")) for name, x in inputs.arrays.items())
    yield from ((_plain(name), (x, "")) for name, x in zip(names, leaves(inputs.state), strict=False))
    for name, x in expected.values.items():
        result = _plain(name if name == "y" else f"final_{name}")
        yield result, (x, name)
        yield f"cotangent/{result}", (cotangents[name], "")
    for name, x in expected.gradients.items():
        yield f"gradient/{_plain(name)}", (x, f"gradient of {name}")


def _plain(name: str) -> str:
    """Return the name of an array of a state without brackets: state.0 of state[0]."""
    return name.replace("[", ".").replace("]", "")


def _tolerances(expected: Expected, label: str) -> dict[str, float]:
    """Return the tolerance in float64 and float32, times 1.05, rounded to two digits."""
    return {name: float(f"{1.05 * expected.tolerance(label, name):.1e}") for name in ("float64", "float32")}


def _error(x: np.ndarray, short: np.ndarray) -> float:
    """Return what is allowed of the largest error of 24 bits, in units of their roundoff."""
    return OTHER_FORMS * float(np.max(np.abs(x - short), initial=0.0)) / PRECISIONS["float32"]


def _counts(state: Any) -> Sequence[int]:
    return [part for part in state if isinstance(part, int)] if isinstance(state, tuple) else []


def _is_complex(x: Any) -> bool:
    return any(getattr(e, "is_complex", False) for e in np.asarray(x).flat)
