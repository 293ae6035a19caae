"""Named intermediates of a chunk: which line of a chunkwise form's equations a port computes wrongly.

A port returns a dict of them after its other results, or a function of their own does, with the port's arguments. A
value is a list of arrays, one for each chunk; or one array, of the first chunk, or with the chunks along its first
axis or after the batch axes. `chunk_equations` computes what is right in plain NumPy, in the order of the equations of
models/memory/gated_delta_rule.py, of which the delta rule (α = 1), gated linear attention (U = V) and linear attention
(both) are cases. SSD is gated linear attention with q = C, k = B, v = Δx and log α = ΔA; its names are those of Dao and
Gu 2024, listing 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.errors import known_name
from proofs.port.cases import Case, Inputs
from proofs.port.comparing import Divergence, axis_labels, difference, failure
from proofs.port.frameworks import PRECISIONS
from proofs.port.locating import described
from proofs.port.running import NOT_RUN, Outcome

if TYPE_CHECKING:
    from proofs.port.checking import Checker

# The line of each intermediate, in the order in which they are computed, and its axes in a chunk of C tokens.
LINES = {
    "gamma": ("γₜ = α₁ ⊙ ⋯ ⊙ αₜ, the decays since the chunk began", "*batch T K"),
    "Gamma": ("Γ[t, s] = αₛ₊₁ ⊙ ⋯ ⊙ αₜ for s ≤ t", "*batch T C K"),
    "A": ("A[t, s] = βₜ Σᵢ kₜᵢ kₛᵢ Γ[t, s]ᵢ for s < t", "*batch T C"),
    "inverse": ("(I + A)⁻¹", "*batch T C"),
    "W": ("W = (I + A)⁻¹ Diag(β) (γ ⊙ K)", "*batch T K"),
    "U": ("(I + A) U = Diag(β) (V − (γ ⊙ K) S)", "*batch T V"),
    "P": ("P[t, s] = Σᵢ qₜᵢ kₛᵢ Γ[t, s]ᵢ for s ≤ t", "*batch T C"),
    "O": ("O = (γ ⊙ Q) S + P U", "*batch T V"),
    "S": ("S′ = Diag(γ_C) S + (K ⊙ Γ[C])ᵀ U", "*batch K V"),
}
SSD_LINES = {
    "A_cumsum": ("A_cumsumₜ = Δ₁A + … + ΔₜA", "*batch T"),
    "L": ("L[t, s] = exp(Δₛ₊₁A + … + ΔₜA) for s ≤ t", "*batch T C"),
    "Y_diag": ("Y_diag = (L ∘ C Bᵀ) Δ X", "*batch T P"),
    "states": ("states = (L[C] ∘ B)ᵀ Δ X, from a zero state", "*batch N P"),
    "Y_off": ("Y_off = exp(A_cumsum) ∘ C S", "*batch T P"),
    "O": ("Y = Y_diag + Y_off", "*batch T P"),
    "S": ("S′ = exp(A_cumsum_C) S + states", "*batch N P"),
}
GREEK = {"γ": "gamma", "Γ": "Gamma"}
LOWER = {"A": -1, "P": 0, "Gamma": 0, "L": 0}  # of which only the triangle up to this diagonal counts
FORMS = {
    "memory.linear_attention": ("P", "O", "S"),
    "memory.gated_linear_attention": ("gamma", "Gamma", "P", "O", "S"),
    "memory.delta_rule": ("A", "inverse", "W", "U", "P", "O", "S"),
    "memory.gated_delta_rule": tuple(LINES),
    "ssm.ssd": tuple(SSD_LINES),
}


TWO_CHUNKS = Case("two chunks", lambda chunk: 2 * chunk, state=True)


@dataclass
class Intermediates:
    """The names that were compared, and the first that differs, with its line of the equations."""

    compared: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)  # names that the form has not
    divergence: Divergence | None = None
    line: str = ""


def chunk_equations(
    Q: np.ndarray,
    K: np.ndarray,
    V: np.ndarray,
    S: np.ndarray,
    beta: np.ndarray | None = None,
    log_decay: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return the intermediates of a chunk of C tokens from the state S, O and the state after it included.

    Q, K are (*batch, C, K), V (*batch, C, V), beta (*batch, C) or None, which is U = V, and log_decay (*batch, C, K),
    (*batch, C) or None, which is α = 1.
    """
    C, found = K.shape[-2], {}
    g = np.zeros(K.shape[:-1]) if log_decay is None else log_decay
    g = g if g.ndim == K.ndim else g[..., None]  # (*batch, C, K or 1)
    gamma = np.exp(np.cumsum(g, axis=-2))
    Gamma = np.zeros((*g.shape[:-1], C, g.shape[-1]))  # (*batch, C, C, K or 1)
    for t in range(C):
        for s in range(t + 1):
            Gamma[..., t, s, :] = np.exp(np.sum(g[..., s + 1 : t + 1, :], axis=-2))
    found["gamma"], found["Gamma"] = gamma, Gamma
    U = V
    if beta is not None:
        found["A"] = A = np.tril(
            beta[..., None] * np.einsum("...ti,...si,...tsi->...ts", K, K, Gamma + 0 * K[..., None, :, :]), -1
        )
        found["inverse"] = inverse = np.linalg.inv(np.eye(C) + A)
        found["W"] = inverse @ (beta[..., None] * gamma * K)
        found["U"] = U = inverse @ (beta[..., None] * (V - (gamma * K) @ S))
    found["P"] = P = np.tril(np.einsum("...ti,...si,...tsi->...ts", Q, K, Gamma + 0 * K[..., None, :, :]))
    found["O"] = (gamma * Q) @ S + P @ U
    found["S"] = gamma[..., -1, :, None] * S + (K * Gamma[..., -1, :, :]).mT @ U
    return found


def reference(checker: Checker, inputs: Inputs) -> list[dict[str, np.ndarray]]:
    """Return the intermediates of each chunk of the form that a port is compared with."""
    tokens = {name: np.asarray(x) for name, x in checker.reference.tokens(inputs.arrays).items()}
    ssd = "x" in tokens
    if ssd:
        tokens["log_decay"] = tokens["delta"] * np.asarray(tokens["A"])[..., None]
        tokens |= {"q": tokens["C"], "k": tokens["B"], "v": tokens["delta"][..., None] * tokens["x"]}
    q, k, v = tokens["q"], tokens["k"], tokens["v"]
    S = np.zeros((*k.shape[:-2], k.shape[-1], v.shape[-1])) if inputs.state is None else inputs.state
    found = []
    for start in range(0, k.shape[-2], inputs.chunk):
        span, time = slice(start, start + inputs.chunk), k.ndim - 2
        beta, g = (tokens[x][(slice(None),) * time + (span,)] if x in tokens else None for x in ("beta", "log_decay"))
        Q, K, V = (x[..., span, :] for x in (q, k, v))
        one = chunk_equations(Q, K, V, S, beta, g)
        if ssd:
            assert g is not None
            one |= {"A_cumsum": np.cumsum(g, axis=-1), "L": one["Gamma"][..., 0], "Y_diag": one["P"] @ V}
            one |= {"states": (K * one["Gamma"][..., -1, :, :]).mT @ V, "Y_off": (one["gamma"] * Q) @ S}
        S = one["S"]
        found.append(one)
    return found


def compare_intermediates(checker: Checker, function: Any, precision: str) -> Intermediates | None:
    """Compare the intermediates of two chunks, those that `function` returns or else the port itself; None without any.

    Raises UserError where a function is given and the mechanism has no chunks.
    """
    form, port = checker.port.form, checker.port
    mechanism = form.function.__module__.removeprefix("models.")
    inputs = checker.inputs(replace(TWO_CHUNKS, state=port.signature.takes("state")))
    given: Any
    with port.framework.context, np.errstate(all="ignore"):
        if function is not None:
            known_name(mechanism, "intermediates: mechanism", FORMS)
            args, keywords = port.arguments(inputs, port.convert(inputs, precision)[1])

            def run() -> Outcome:
                try:
                    return Outcome(results={"": function(*args, **keywords)})
                except (Exception, SystemExit) as error:  # the port's own code
                    return Outcome(failures={"": described(error, port.file)})

            outcome = port.watched(inputs, precision, run, gradients=False)
            if message := outcome.failures.get(""):
                return None if message == NOT_RUN else Intermediates(divergence=failure("intermediates", message))
            given = outcome.results[""]
        elif port.intermediates is None:  # nor did the latest run return any
            return None
        else:
            port.run(inputs, precision, gradients=False)
            given = port.intermediates
        if given is None or mechanism not in FORMS:
            return None
        if not isinstance(given, Mapping):
            message = f"expected a dict of arrays by name, got {type(given).__name__}"
            return Intermediates(divergence=failure("intermediates", message))
        named = {GREEK.get(str(name), str(name)): x for name, x in given.items()}
        found = _first_difference(checker, FORMS[mechanism], named, inputs, precision)
        found.unknown = [name for name in named if name not in FORMS[mechanism]]
        return found


def _first_difference(
    checker: Checker, order: tuple[str, ...], given: Mapping[str, Any], inputs: Inputs, precision: str
) -> Intermediates:
    """Return the first that differs, chunk by chunk and in the order of the equations."""
    lines = SSD_LINES if "L" in order else LINES
    chunks = reference(checker, inputs)
    found = Intermediates([name for name in order if name in given])
    arrays: dict[str, list[np.ndarray]] = {}
    for name in found.compared:
        right = [_without_channel(name, one[name]) for one in chunks]
        arrays[name] = list(_by_chunk(checker, name, _axes(lines, name, right[0]), given[name], right))
    for i, one in enumerate(chunks):
        for name in found.compared:
            if i >= len(arrays[name]):
                continue
            want = _without_channel(name, one[name])
            if divergence := _difference(checker, name, i, _axes(lines, name, want), arrays[name][i], want, precision):
                found.divergence, found.line = divergence, lines[name][0]
                return found
    return found


def _axes(lines: Mapping[str, tuple[str, str]], name: str, want: np.ndarray) -> str:
    """Return the axes of an intermediate; decays of a token have no channel."""
    axes = lines[name][1]
    return axes.removesuffix(" K") if name in ("gamma", "Gamma") and want.ndim < 2 + len(axes.split()) else axes


def _without_channel(name: str, x: np.ndarray) -> np.ndarray:
    return x[..., 0] if name in ("gamma", "Gamma") and x.shape[-1] == 1 else x


def _by_chunk(checker: Checker, name: str, axes: str, given: Any, want: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the array of each chunk."""
    library = checker.port.framework
    if isinstance(given, (list, tuple)):
        yield from map(library.numpy, given)
        return
    x, shapes = library.numpy(given), [_shape(checker, name, axes, want[0], layout) for layout in (False, True)]
    shapes += [(*shape, 1) for shape in shapes]
    for axis in (0, len(checker.example.batch)):
        if x.ndim > axis and (*x.shape[:axis], *x.shape[axis + 1 :]) in shapes:
            yield from np.moveaxis(x, axis, 0)
            return
    yield x


def _shape(checker: Checker, name: str, axes: str, want: np.ndarray, layout: bool) -> tuple[int, ...]:
    state = "T" not in axes.split()
    return checker.port.signature.to_port(axes, want, state=state).shape if layout else want.shape


def _difference(
    checker: Checker, name: str, chunk: int, axes: str, x: np.ndarray, want: np.ndarray, precision: str
) -> Divergence | None:
    label = f"{name} of chunk {chunk}"
    if x.shape == (*want.shape, 1):
        x = x[..., 0]
    declared = _shape(checker, name, axes, want, layout=True)
    if x.shape != want.shape and x.shape == declared:
        x = checker.port.signature.from_port(axes, x, state="T" not in axes.split())
    if x.shape != want.shape:
        return failure(label, f"has shape {x.shape}, expected {want.shape}")
    if name in LOWER:
        square = axes.endswith("T C")
        x, want = (np.tril(y, LOWER[name]) if square else _lower_channels(y) for y in (x, want))
    labels = axis_labels(axes, want.ndim, checker.port.signature.batch_letters)
    tolerance = 2.0**10 * PRECISIONS[precision] * float(np.max(np.abs(want[np.isfinite(want)]), initial=0.0))
    found = difference(label, x, want, tolerance, labels)
    if found is not None and not difference(label, -x, want, tolerance, labels):
        return failure(label, "has the other sign")
    return found


def _lower_channels(x: np.ndarray) -> np.ndarray:
    """Return the lower triangle of (…, C, C, K)."""
    return np.moveaxis(np.tril(np.moveaxis(x, -1, 0)), 0, -1)
