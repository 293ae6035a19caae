"""The selective scan and its dual form: which properties of a linear system selection keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.memory import gated_linear_attention
from models.ssm import selective_scan, ssd
from proofs.checker.statements import converges, identity, refuted
from proofs.checker.strategies import (
    LARGE,
    POSITIVE,
    SMALL,
    ChunkSize,
    Cut,
    Keys,
    LogDecay,
    Queries,
    State,
    Strategy,
    Values,
    elements,
    gates,
)
from proofs.identities.lti import delay

CHAPTER = 18

MAMBA, MAMBA2 = "gu2023mamba", "dao2024mamba2"
N = {"N": st.integers(1, 3)}

Inputs = Annotated[Any, Strategy("*batch T D", LARGE)]
Steps = Annotated[Any, Strategy("*batch T D", POSITIVE)]
Logits = Annotated[Any, Strategy("*batch T D", LARGE)]
Rates = Annotated[Any, Strategy("D N", elements(-1, "-1/3", -2, "-3/5", "-1/7"), sizes=N)]
Enter = Annotated[Any, Strategy("*batch T N", SMALL, sizes=N)]
Leave = Annotated[Any, Strategy("*batch T N", LARGE, sizes=N)]
Skip = Annotated[Any, Strategy("D", LARGE)]
Start = Annotated[Any, Strategy("*batch D N", LARGE, sizes=N)]

LogFactors = Annotated[Any, Strategy("*batch T D N", gates, logarithm=True, sizes=N)]
Terms = Annotated[Any, Strategy("*batch T D N", LARGE, sizes=N)]
Factor = Annotated[Any, Strategy("*batch D", SMALL)]
Term = Annotated[Any, Strategy("*batch D", LARGE)]

Step = Annotated[Any, Strategy("D", POSITIVE)]
LogFactor = Annotated[Any, Strategy("D N", gates, logarithm=True, sizes=N)]
Direction = Annotated[Any, Strategy("D N", SMALL, sizes=N)]
Reader = Annotated[Any, Strategy("N", LARGE, sizes=N)]
Rate = Annotated[Any, Strategy("*batch", elements(-1, "-1/3", -2, "-3/5", "-1/7"))]
HeadSteps = Annotated[Any, Strategy("*batch T", POSITIVE)]

Pair = tuple[Any, Any]

# The operator of the scan, and its associativity


def compose(second: Pair, first: Pair) -> Pair:
    """Return (a₂, b₂) ∘ (a₁, b₁), the second step after the first."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def pairs(log_a: Any, b: Any) -> list[Pair]:
    """Return one (a, b) for each token."""
    a = namespace(log_a).exp(log_a)
    return [(a[..., t, :, :], b[..., t, :, :]) for t in range(b.shape[-3])]


def scan_in_order(log_a: Any, b: Any, h: Any) -> Any:
    """Compute all hₜ = aₜ hₜ₋₁ + bₜ, one after the other."""
    outputs = []
    for a, b_t in pairs(log_a, b):
        h = a * h + b_t
        outputs.append(h)
    return namespace(b).stack(outputs, axis=-3)


def exclusive_scan(steps: list[Pair], before: Pair) -> list[Pair]:
    """Return the composition of all steps before each one, by up- and down-sweep (Blelloch 1990, section 1.3)."""
    if len(steps) == 1:
        return [before]
    neighbours = [steps[i : i + 2] for i in range(0, len(steps), 2)]
    combined = [compose(*reversed(pair)) if len(pair) == 2 else pair[0] for pair in neighbours]
    parents = exclusive_scan(combined, before)
    return [parents[i // 2] if i % 2 == 0 else compose(steps[i - 1], parents[i // 2]) for i in range(len(steps))]


def reduce_in_brackets(steps: list[Pair], cut: int, operator: Callable[[Pair, Pair], Pair] = compose) -> Pair:
    """Compose all steps, with brackets that depend on `cut`."""
    if len(steps) == 1:
        return steps[0]
    middle = 1 + cut % (len(steps) - 1)
    later, earlier = steps[middle:], steps[:middle]
    return operator(reduce_in_brackets(later, cut + 1, operator), reduce_in_brackets(earlier, cut + 2, operator))


@identity(
    "The scan's operator (a₂, b₂)∘(a₁, b₁) = (a₂a₁, a₂b₁ + b₂) is associative",
    source=f"blelloch1990, section 1.4; {MAMBA}, section 3.3.2; talk-mamba, slide 24: the scan",
    exact=True,
)
def operator_is_associative(a: Factor, b: Term, c: Factor, d: Term, e: Factor, f: Term):
    return compose((a, b), compose((c, d), (e, f))), compose(compose((a, b), (c, d)), (e, f))


@identity("Its identity is (1, 0), on either side", source="blelloch1990, section 1.4", exact=True)
def operator_has_an_identity(a: Factor, b: Term):
    neutral = (0 * a + 1, 0 * b)
    return (compose((a, b), neutral), compose(neutral, (a, b))), ((a, b), (a, b))


@refuted("It is commutative too", source="minigrad, the order of tokens would not matter", exact=True)
def operator_commutes(a: Factor, b: Term, c: Factor, d: Term):
    return compose((a, b), (c, d)), compose((c, d), (a, b))


@identity(
    "Any bracketing of the steps is the same step, so a sequence may be split anywhere, also across devices",
    source=f"{MAMBA}, section 3.3.2",
    exact=True,
)
def any_bracketing(log_a: LogFactors, b: Terms, state: Start, cut: Cut):
    a, summed = reduce_in_brackets(pairs(log_a, b), cut)
    return a * state + summed, scan_in_order(log_a, b, state)[..., -1, :, :]


@identity(
    "Hillis and Steele's scan, in log₂ T rounds of doubling stride, is the recurrence", source="hillis1986", exact=True
)
def hillis_steele(log_a: LogFactors, b: Terms, state: Start):
    return selective_scan.hillis_steele_scan(log_a, b, state), scan_in_order(log_a, b, state)


@identity(
    "Blelloch's scan, by an up-sweep and a down-sweep, is the recurrence",
    source="blelloch1990, section 1.2",
    exact=True,
)
def blelloch_scan(log_a: LogFactors, b: Terms, state: Start):
    steps, start = pairs(log_a, b), (0 * state + 1, 0 * state)
    inclusive = [compose(step, before) for step, before in zip(steps, exclusive_scan(steps, start), strict=True)]
    return namespace(b).stack([a * state + summed for a, summed in inclusive], axis=-3), scan_in_order(log_a, b, state)


@identity(
    "Chunks from zero states, plus the contribution of their initial states, are the recurrence",
    source=f"{MAMBA2}, section 6",
    exact=True,
)
def scan_in_chunks(log_a: LogFactors, b: Terms, state: Start, chunk_size: ChunkSize):
    return selective_scan.chunked_scan(log_a, b, state, chunk_size), scan_in_order(log_a, b, state)


# The selective scan


@identity("The associative form is the recurrence", source=f"{MAMBA}, section 3.3.2")
def associative(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, state: Start):
    at_once = selective_scan.associative(u, delta, A, B, C, D, state=state)
    return at_once, selective_scan.recurrent(u, delta, A, B, C, D, state=state)


@identity("The chunkwise form is the recurrence", source=f"{MAMBA2}, section 6")
def chunkwise(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, state: Start, chunk_size: ChunkSize):
    chunked = selective_scan.chunkwise(u, delta, A, B, C, D, state=state, chunk_size=chunk_size)
    return chunked, selective_scan.recurrent(u, delta, A, B, C, D, state=state)


@identity(
    "A prefill of some tokens, then one token at a time from its state, is one pass over all",
    source=f"{MAMBA}, section 3.3",
)
def prefill_then_steps(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip, cut: Cut):
    def run(form: Any, start: int, stop: int | None, state: Any) -> Any:
        u_c, delta_c, B_c, C_c = (x[..., start:stop, :] for x in (u, delta, B, C))
        return form(u_c, delta_c, A, B_c, C_c, D, state=state)

    y, state = run(selective_scan.chunkwise, 0, cut, None)
    outputs = [y]
    for t in range(cut, u.shape[-2]):
        y, state = run(selective_scan.recurrent, t, t + 1, state)
        outputs.append(y)
    return (namespace(u).concat(outputs, axis=-2), state), run(selective_scan.associative, 0, None, None)


@identity(
    "Where every token has the same Δ, B and C it is the convolution with C Āᵗ B̄",
    source="talk-mamba, slides 20–21",
    exact=True,
)
def constant_selection_is_a_convolution(u: Inputs, log_a: LogFactor, b: Direction, c: Reader):
    xp, length = namespace(u), u.shape[-2]
    terms = u[..., None] * b
    everywhere = namespace(log_a).broadcast_to(log_a, terms.shape)
    h = selective_scan.hillis_steele_scan(everywhere, terms, terms[..., 0, :, :] * 0)
    a = xp.exp(log_a)
    kernel, power = [], b
    for _ in range(length):
        kernel.append(xp.sum(power * c, axis=-1))
        power = a * power
    convolved = [sum(kernel[t - s] * u[..., s, :] for s in range(t + 1)) for t in range(length)]
    return xp.sum(h * c, axis=-1), xp.stack(convolved, axis=-2)


@identity(
    "Theorem 1: N = 1, A = −1, B = 1, ZOH: h = (1 − g)h + gu, g = 1 − exp(−Δ), σ(z) if Δ = softplus z",
    source=f"{MAMBA}, theorem 1",
)
def gates_of_an_rnn(u: Inputs, delta: Steps):
    gate = 1 - namespace(delta).exp(-delta)
    # zero-order hold's B̄ = g, where the scan takes ΔB
    return scan_one_state(u * gate / delta, delta), run_gated_rnn(u, gate)


@refuted(
    "Theorem 1 holds for the code's B̄ = ΔB as well (there softplus(z) stands where σ(z) should)",
    source=f"{MAMBA}, theorem 1, which is about zero-order hold",
)
def gates_of_an_rnn_in_code(u: Inputs, z: Logits):
    return scan_one_state(u, mg.softplus(z)), run_gated_rnn(u, mg.sigmoid(z))


def scan_one_state(u: Any, delta: Any) -> Any:
    """Run the scan with N = 1, A = −1, B = C = 1 and no skip."""
    xp = namespace(u, delta)
    ones = xp.ones_like(u[..., :1])
    rate = -xp.ones((u.shape[-1], 1), dtype=u.dtype)
    return selective_scan.recurrent(u, delta, rate, ones, ones, xp.zeros((u.shape[-1],), dtype=u.dtype))[0]


def run_gated_rnn(u: Any, gate: Any) -> Any:
    """Compute all hₜ = (1 − gₜ)hₜ₋₁ + gₜuₜ."""
    h, outputs = 0 * u[..., 0, :], []
    for t in range(u.shape[-2]):
        h = (1 - gate[..., t, :]) * h + gate[..., t, :] * u[..., t, :]
        outputs.append(h)
    return namespace(u).stack(outputs, axis=-2)


# "Mamba trains by FFT convolution"


@refuted(
    "Mamba trains by convolution: given Δ, B and C of the tokens, the input delayed gives the output delayed",
    source="talk-papers, a convolution commutes with delays",
    instead="selective.delayed_tokens",
)
def delayed_input(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip):
    y, _ = selective_scan.recurrent(u, delta, A, B, C, D)
    from_delayed, _ = selective_scan.recurrent(delay(u), delta, A, B, C, D)
    return from_delayed, delay(y)


@refuted(
    "Mamba trains by convolution: with Δ = softplus(u), twice the input gives twice the output",
    source="talk-papers, a convolution is linear; talk-mamba, slide 22: selection is more than a Δ",
    instead="selective_steps.linear_given_its_selection",
)
def doubled_input(u: Inputs, A: Rates, B: Enter, C: Leave, D: Skip):
    y, _ = selective_scan.recurrent(u, mg.softplus(u), A, B, C, D)
    twice, _ = selective_scan.recurrent(2 * u, mg.softplus(2 * u), A, B, C, D)
    return twice, 2 * y


@identity(
    "Selection gives up linearity, not time invariance: input, Δ, B and C delayed together give the output delayed",
    source="minigrad, made precise",
)
def delayed_tokens(u: Inputs, delta: Steps, A: Rates, B: Enter, C: Leave, D: Skip):
    y, _ = selective_scan.recurrent(u, delta, A, B, C, D)
    from_delayed, _ = selective_scan.recurrent(delay(u), 1 + delay(delta - 1), A, delay(B), delay(C), D)
    return from_delayed, delay(y)


# B̄ = ΔB


@converges(
    "Mamba's B̄ = ΔB differs from zero-order hold's (exp(ΔA) − 1)/A B by at most Δ²|AB|/2 a step: O(Δ²)",
    source=f"{MAMBA}, eq. 4 against its code; mamba-code, #114, #121, #129",
)
def euler_input(A: Rates, B: Direction):
    xp = namespace(A)
    steps = xp.stack([A * 0 + 2.0**-k for k in range(9)], axis=-1)
    A, B = A[..., None], B[..., None]
    return abs(steps * B - (xp.exp(steps * A) - 1) / A * B), steps * steps * abs(A * B) / 2


@refuted("B̄ = ΔB is zero-order hold", source="mamba-code, #114, #121, #129, #524")
def euler_input_is_zero_order_hold(A: Rates, B: Direction, delta: Step):
    delta = delta[:, None]
    return delta * B, (namespace(A).exp(delta * A) - 1) / A * B


# State-space duality


@identity(
    "State-space duality: with one rate a head, the recurrence is (L ∘ CBᵀ)v", source=f"{MAMBA2}, section 5", exact=True
)
def duality(v: Values, log_decay: LogDecay, B: Keys, C: Queries, state: State):
    return ssd.dual(v, log_decay, B, C, state), gated_linear_attention.recurrent(C, B, v, log_decay, state=state)


@identity("The chunkwise form is the dual form", source=f"{MAMBA2}, section 6", exact=True)
def duality_in_chunks(v: Values, log_decay: LogDecay, B: Keys, C: Queries, state: State, chunk_size: ChunkSize):
    return ssd.chunked(v, log_decay, B, C, state, chunk_size), ssd.dual(v, log_decay, B, C, state)


@identity(
    "All three forms are gated linear attention with q = C, k = B, v = Δx and log decay ΔA",
    source=f"{MAMBA2}, section 5.2–5.3, figure 4",
)
def gated_attention(x: Values, delta: HeadSteps, A: Rate, B: Keys, C: Queries, state: State, chunk_size: ChunkSize):
    attention = gated_linear_attention.recurrent(C, B, delta[..., None] * x, delta * A[..., None], state=state)
    chunked = ssd.chunkwise(x, delta, A, B, C, state=state, chunk_size=chunk_size)
    unchunked = tuple(form(x, delta, A, B, C, state=state) for form in (ssd.recurrent, ssd.quadratic))
    return (*unchunked, chunked), (attention,) * 3


@identity("It is the selective scan with one Δ and one rate for all channels", source=f"{MAMBA2}, section 2")
def shared_rate(x: Values, delta: HeadSteps, B: Keys, C: Queries):
    xp, channels = namespace(x), x.shape[-1]
    rates = -xp.ones((channels, B.shape[-1]), dtype=x.dtype) / 3
    steps = delta[..., None] * xp.ones((channels,), dtype=x.dtype)
    y, h = selective_scan.recurrent(x, steps, rates, B, C, xp.zeros((channels,), dtype=x.dtype))
    head = [part[..., None, :, :] for part in (x, B, C)]
    z, S = ssd.recurrent(head[0], delta[..., None, :], rates[:1, 0], *head[1:])
    return (z[..., 0, :, :], S[..., 0, :, :]), (y, xp.matrix_transpose(h))
