"""The chapters on invariant systems and on S4 can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put where the chapter looks for the module. The copy
with nothing replaced passes.
"""

import dataclasses
import types

import pytest

from models import linear_systems
from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from tests.copies import copy_of

BROKEN = [
    # chapter, module, text, what stands there instead, what is wrong
    (
        "lti",
        "linear_systems",
        "(length + kernel.shape[-1] - 2).bit_length()",
        "(length - 1).bit_length()",
        "too few zeros",
    ),
    ("lti", "linear_systems", "jump = jump if count == 1 else square(jump)", "jump = jump", "A for all its powers"),
    (
        "lti",
        "linear_systems",
        "columns = A.mT if A.ndim == 3 else A",
        "columns = A",
        "the start state read through A transposed",
    ),
    (
        "lti",
        "linear_systems",
        "matvec(columns, C), length)",
        "C, length)",
        "the start state read early",
    ),
    ("lti", "linear_systems", "xp.flip(u, axis=-2)", "u", "the oldest token taken for the newest"),
    ("lti", "lssl", "delta[:, None, None])", "0 * delta[:, None, None] + delta[0])", "one step for all channels"),
    ("lti", "lssl", "if alpha == 0.5", "if alpha <= 1", "α ignored"),
    ("s4", "s4", "rows = rows - (", "rows = rows - 0 * (", "the kernel not truncated"),
    ("s4", "s4", "cp * pb / (1 + c * pp)", "cp * pb / (1 + pp)", "a factor of Woodbury's identity missing"),
    ("s4", "s4", "1j * s - c * xp.conj(poles)", "1j * s - c * poles", "the half twice, its conjugate never"),
    ("s4", "s4", "C * P, xp.conj(P) * B", "C * P, P * B", "P for its conjugate"),
    ("s4", "s4", "return (c + 1j * s) * (", "return (", "the phase missing"),
    ("s4", "s4", "solved - correction * xp.real(", "solved - 0 * xp.real(", "no rank one in the step"),
    ("s4", "s4", "2 * h + drive * u", "h + drive * u", "the explicit half of the step missing"),
    ("s4", "s4d", "K = 2 * xp.real(", "K = xp.real(", "once the real part"),
    ("s4", "s4d", "powers(fine[..., -1] * A,", "powers(fine[..., -1],", "blocks that overlap by a token"),
    ("s4", "s4d", "responses(C * A * h,", "responses(C * h,", "the start state read early"),
    ("s4", "s4d", "end = B * final_state(u, A)", "end = final_state(u, A)", "the input not weighted"),
    ("s4", "s4d", "(length - 1) % fine.shape[-1]", "length % fine.shape[-1]", "the start state faded a token too much"),
    ("sampling", "s4d", "METHODS[discretisation](", 'METHODS["mamba"](', "B̄ = ΔB for zero-order hold"),
    ("sampling", "s4d", "delta[..., None])", "delta[..., None] ** 2)", "a step that is not the time between samples"),
    (
        "sampling",
        "lssl",
        "method(A, B, delta",
        "method(A, B / delta[0], delta",
        "an input that the step does not scale",
    ),
]


def path_of(name):
    return name if name == "linear_systems" else f"ssm.{name}"


def failure(chapter, name, module, monkeypatch):
    """Return the first failing statement of the chapter on the copy: its values, exact where they can be."""
    if name == "linear_systems":  # mechanisms call its functions as the module's attributes
        for attribute, value in vars(module).items():
            if isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                monkeypatch.setattr(linear_systems, attribute, value)
    else:
        monkeypatch.setattr(f"proofs.identities.{chapter}.{name}", module)
    for statement in [s for s in STATEMENTS.values() if s.chapter == chapter]:
        stated = dataclasses.replace(statement)  # a new one, whose bounds are not known yet
        for system in {"fractions", "float64"} & set(systems_of(stated)):
            if check_system(stated, system).status == "failed":
                return f"{statement.name} in {system}"
    return None


@pytest.mark.parametrize(("chapter", "name", "text", "instead", "wrong"), BROKEN, ids=lambda x: x)
def test_a_broken_copy_is_caught(chapter, name, text, instead, wrong, monkeypatch):
    assert failure(chapter, name, copy_of(path_of(name), text, instead), monkeypatch), wrong


@pytest.mark.parametrize(("chapter", "name"), [("lti", "lti"), ("lti", "linear_systems"), ("s4", "s4")])
def test_a_faithful_copy_passes(chapter, name, monkeypatch):
    assert failure(chapter, name, copy_of(path_of(name)), monkeypatch) is None
