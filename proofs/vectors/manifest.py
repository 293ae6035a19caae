"""The manifest of the vectors: what the files hold, by which conventions, and how near a port must come."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from models.references import cited
from proofs.checker.statements import Statement, select
from proofs.port.conventions import conventions
from proofs.port.reference import result_names
from proofs.port.signature import state_axes, y_axes
from proofs.vectors import arithmetic
from proofs.vectors.evaluate import Subject, Vector
from proofs.vectors.inputs import CHUNK, DESCRIPTIONS, VERSION

TIES = ("forms_agree", "streaming")  # the statements that tie the forms of a mechanism, and its calls, together

TEXTS = {
    "arrays": "NAME.npz, NAME.safetensors and NAME.json hold the same arrays under the same names, CASE/ARRAY: inputs "
    "by the names of the arguments, the initial state where the case has one (state, or state.0, state.1, …), y, the "
    "final state, cotangent/RESULT and gradient/INPUT. All are float64, little-endian, in C order.",
    "axes": "Leading axes are batch axes (*batch), then time (T), then features. Here *batch is (2, 3), and (1, 1) in "
    "the case long.",
    "complex": "Complex numbers are pairs (real, imaginary) along a further last axis, in all three formats.",
    "infinity": 'In JSON −∞ is the string "-inf". It is the logarithm of a gate of 0 and occurs in inputs only.',
    "gradients": "gradient/x is the derivative with respect to x of Re Σ conj(c) r over all entries r of y and of the "
    "final state, with c the cotangents. For a complex x it is Jᴴ c, as in PyTorch: the conjugate of what jax.vjp "
    "returns.",
    "tolerance": "The largest |port − vector| of an entry that rounding explains, for a port that computes in float64 "
    "or in float32: 32 times the error that the form itself makes with numbers of 24 bits, each operation rounded to "
    "nearest and sums in order (for float64 times 2⁻²⁹), plus the unit roundoff times 8 of the array's largest entry "
    "and 1 of the largest entry of all results, or of all gradients; times 1.05, rounded to two digits. It allows for "
    "another order of sums and for other forms; the forms of this package meet it.",
    "inputs": "Multiples of 1/4096, which float32 holds, from a formula in integers (proofs/vectors/inputs.py), so "
    "that ports in float64 and in float32 start from the same numbers. Mini-batches, where a mechanism has them, are "
    f"of {CHUNK} tokens.",
    "promise": f"Results and gradients are computed from these inputs with numbers of {arithmetic.EXACT} bits and "
    "rounded once, to the nearest float64; −0 is written as 0. Neither NumPy's arithmetic, BLAS, a mathematical "
    "library nor a processor's floating point takes part, so the files of numbers are the same, byte for byte, on "
    "every machine, for one version of the vectors. Constants that the code writes as decimals (the GELU's, the "
    "coefficients of a series) are the float64 numbers nearest to them. The tolerances in this file may "
    "change in their last digit with the versions of NumPy and mpmath, and it also names the version of minigrad.",
}


def entry(subject: Subject, vectors: Mapping[str, Vector], files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the manifest says of one subject."""
    form, convention = subject.form, conventions()[subject.mechanism]
    states = zip(result_names(form)[1:], state_axes(form.state), strict=True)
    return {
        "mechanism": subject.mechanism,
        "variant": subject.variant,
        "computed by": form.function.__name__,
        "valid for the forms": list(subject.forms),
        "arguments": [
            {"name": name, "axes": axes, "numbers": form.domains[name].value, "complex": form.tokens[name].complex}
            for name, axes in form.axes.items()
        ],
        "y": {"axes": y_axes(form)},
        "state": {
            "meaning": convention.state,
            "arrays": [{"name": name.replace("[", ".").replace("]", ""), "axes": axes} for name, axes in states],
        },
        "scale": convention.scale,
        "gates": convention.gates,
        "options": {"batch_size": CHUNK} if form.layout is not None else {},
        "statements": [_statement(statement) for statement in _statements(subject)],
        "files": {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()},
        "cases": {name: _case(name, vector) for name, vector in vectors.items()},
    }


def manifest(entries: Mapping[str, Any]) -> bytes:
    """Return the file manifest.json."""
    whole = {
        "about": "Golden vectors of minigrad's mechanisms, for ports to languages that cannot call Python.",
        "version": VERSION,
        "minigrad": importlib.metadata.version("minigrad"),
        "conventions": TEXTS,
        "cases": DESCRIPTIONS,
        "mechanisms": dict(entries),
    }
    return (json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8")


def _case(name: str, vector: Vector) -> dict[str, Any]:
    arrays = {}
    for array, x in sorted(vector.arrays.items()):
        is_complex = x.dtype.kind == "c"
        arrays[f"{name}/{array}"] = {"shape": [*x.shape, 2] if is_complex else list(x.shape), "complex": is_complex}
        if array in vector.tolerances:
            arrays[f"{name}/{array}"]["tolerance"] = vector.tolerances[array]
    return {"arrays": arrays, **vector.counts}


def _statements(subject: Subject) -> list[Statement]:
    """Return the statements about the forms of a subject."""
    labels = {".".join(filter(None, (subject.mechanism.rpartition(".")[2], f, subject.variant))) for f in subject.forms}
    return [s for s in select(TIES) if s.name.partition("[")[2].removesuffix("]") in labels]


def _statement(statement: Statement) -> dict[str, str]:
    return {
        "name": statement.name,
        "sentence": statement.sentence,
        "source": cited(statement.source),
        "check": f"python -m proofs check '{statement.name}'",
    }
