"""The chapters on HiPPO and on discretisation can fail: copies with one thing wrong, and every one of them is caught.

A copy is the module's own source with one piece of text replaced, put where the chapter looks for the module. The copy
with nothing replaced passes. `tests.proofs.test_broken_copies` does the same for mechanisms that have forms.
"""

import dataclasses

import pytest

from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from tests.copies import copy_of

BROKEN = [
    # module, text, what stands there instead, what is wrong
    ("hippo", "np.diag(np.arange(1.0, N + 1))", "np.diag(np.arange(0.0, N))", "LegS's diagonal off by one"),
    ("hippo", "-np.tril(np.outer(root, root), -1)", "-np.triu(np.outer(root, root), 1)", "LegS transposed"),
    ("hippo", "(-1.0) ** (n[:, None] - n)", "1.0", "LegT's alternating sign missing"),
    ("hippo", "-np.tril(np.ones((N, N)))", "0.5 * np.eye(N) - np.tril(np.ones((N, N)))", "LagT of another measure"),
    ("hippo", "- 2 * np.outer(g, g), 2 * g", "- np.outer(g, g), 2 * g", "half of Fourier's rank one"),
    ("hippo", "np.pi * ((n + 1) // 2)", "np.pi * ((n + 2) // 2)", "Fourier's sines of the next frequency"),
    ("hippo", "B[:, None] / np.sqrt(2)", "B[:, None]", "P with √2 too much"),
    (
        "hippo",
        "V = np.asarray(vectors[:, N // 2 :]",
        "V = np.asarray(vectors[:, : N // 2]",
        "the other halves of the eigenvectors",
    ),
    ("hippo", "np.log(k / (k - 1)) if method", "1 / k if method", "1/k where its integral should be"),
    ("hippo", "c[0] = f[0]", "c[0] = 0", "the first sample forgotten"),
    ("hippo", "legvander(1 - 2 * age,", "legvander(2 * age - 1,", "the past backwards"),
    (
        "discretize",
        "power, phi = power @ power, phi @ (power + identity) / 2",
        "power, phi = power @ power, phi @ (power + identity)",
        "φ doubled with its step",
    ),
    (
        "discretize",
        "power, phi = power @ power, phi @ (power + identity) / 2",
        "power = power @ power\n        phi = phi @ (power + identity) / 2",
        "φ from the next power",
    ),
    ("discretize", "SERIES = [1 / math.factorial(k + 1)", "SERIES = [1 / math.factorial(k)", "eˣ for φ"),
    ("discretize", "for k in range(21)", "for k in range(6)", "the series cut short"),
    ("discretize", "(xp.exp(far) - 1) / far", "(xp.exp(far) - 1)", "φ of large numbers not divided"),
    ("discretize", "xp.where(small, series, (", "xp.where(small, xp.ones_like(x), (", "φ as 1 near 0"),
    ("discretize", "scale * (delta * columns)], axis", "(delta * columns)], axis", "half of the bilinear B̄"),
    ("discretize", "A, B, delta, 1, 1, scale=2", "A, B, delta, 0, 2, scale=2", "Euler's method for the bilinear one"),
    (
        "discretize",
        "return _identity(A) + delta * A, delta * B",
        "return _identity(A) + delta * A, B",
        "Euler's B̄ without the step",
    ),
    (
        "discretize",
        "return namespace(A, _array(delta)).exp(delta * A), delta * B",
        "return namespace(A, _array(delta)).exp(delta * A), delta * B / A",
        "Mamba's B̄ over A",
    ),
]
CHAPTERS = {"hippo": ("hippo", "nplr"), "discretize": ("discretize", "orders")}


def failure(name, module, monkeypatch):
    """Return the first failing statement of its chapters on the copy, in a number system of NumPy alone."""
    for chapter in CHAPTERS[name]:
        monkeypatch.setattr(f"proofs.identities.{chapter}.{name}", module)
    for statement in [s for s in STATEMENTS.values() if s.chapter in CHAPTERS[name]]:
        arguments = dict(statement.fixed)
        if "method" in arguments:
            arguments["method"] = module.METHODS[statement.name.partition("[")[2].rstrip("]")]
        stated = dataclasses.replace(statement, fixed=arguments)  # a new one, whose bounds are not known yet
        for system in systems_of(stated):
            if system in SYSTEMS and SYSTEMS[system].library:
                continue
            if check_system(stated, system).status == "failed":
                return f"{statement.name} in {system}"
    return None


@pytest.mark.parametrize(("name", "text", "instead", "wrong"), BROKEN, ids=lambda x: x.replace("\n", " "))
def test_a_broken_copy_is_caught(name, text, instead, wrong, monkeypatch):
    assert failure(name, copy_of(f"ssm.{name}", text, instead), monkeypatch), wrong


@pytest.mark.parametrize("name", ["hippo", "discretize"])
def test_a_faithful_copy_passes(name, monkeypatch):
    assert failure(name, copy_of(f"ssm.{name}"), monkeypatch) is None
