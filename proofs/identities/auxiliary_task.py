"""Effect of a gradient step on the auxiliary loss of test-time training on the main loss. Talk on Titans, 30:16–31:39.

Both tasks read features of one shared encoder W through a head of their own, as in Sun et al. 2020, here a linear one:
ℓ_m = CE(x W A, label) and ℓ_s = CE(x′ W B, rotation), with x′ the rotated input and CE the cross entropy.
"""

from __future__ import annotations

from typing import Annotated, Any

from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from proofs.checker.statements import FLOATS, bounded, refuted
from proofs.checker.strategies import LARGE, POSITIVE, SMALL, Strategy

CHAPTER = 7

SUN = "sun2020"

CLASSES = {"P": st.integers(2, 3)}  # with one class there is nothing to learn
Input = Annotated[Any, Strategy("1 K", SMALL)]
Encoder = Annotated[Any, Strategy("K H", SMALL)]
MainHead = Annotated[Any, Strategy("H P", LARGE, sizes=CLASSES)]
RotationHead = Annotated[Any, Strategy("H 4", LARGE)]
Rate = Annotated[Any, Strategy("1", POSITIVE)]


def cross_entropy(x: Any, W: Any, head: Any) -> Any:
    """Return −log p of the first class, (1,), from logits x W A."""
    logits = x @ W @ head
    return mg.logsumexp(logits, axis=-1) - logits[..., 0]


def gradients(x: Any, rotated: Any, W: Any, A: Any, B: Any) -> tuple[Any, Any]:
    """Return the gradients of the main and of the auxiliary loss for the encoder."""
    main = mg.grad(lambda W: mg.sum(cross_entropy(x, W, A)))(W)
    return main, mg.grad(lambda W: mg.sum(cross_entropy(rotated, W, B)))(W)


def smoothness(x: Any, A: Any) -> Any:
    """Return L = ½ ‖x‖² ‖A‖², (1,), with ‖A‖ Frobenius' norm: no curvature of ℓ_m is greater, as CE's is at most ½."""
    xp = namespace(x, A)
    return xp.sum(x * x, axis=-1) * xp.sum(A * A) / 2


@bounded(
    "The main loss after a step on the auxiliary one: ℓ_m(W − ηg_s) ≤ ℓ_m(W) − η⟨g_m, g_s⟩ + ½Lη²‖g_s‖²",
    source=f"talk-titans, 31:15, made precise; {SUN}, theorem 1",
    only=FLOATS,
)
def main_loss_after_an_auxiliary_step(x: Input, rotated: Input, W: Encoder, A: MainHead, B: RotationHead, eta: Rate):
    xp = namespace(x, W)
    main, auxiliary = gradients(x, rotated, W, A, B)
    slope, square = xp.sum(main * auxiliary), xp.sum(auxiliary * auxiliary)
    limit = cross_entropy(x, W, A) - eta * slope + smoothness(x, A) * eta * eta * square / 2
    return cross_entropy(x, W - eta * auxiliary, A), limit


@refuted(
    "A step on the auxiliary loss lowers the main loss, if it is short",
    source="talk-titans, 31:15: 'in a direction that helps the main task'",
    relation="≤",
    instead="auxiliary_task.aligned_step_helps",
)
def auxiliary_step_helps(x: Input, rotated: Input, W: Encoder, A: MainHead, B: RotationHead, eta: Rate):
    _, auxiliary = gradients(x, rotated, W, A, B)
    return cross_entropy(x, W - eta / 1000 * auxiliary, A), cross_entropy(x, W, A)


@bounded(
    "It does where the gradients agree, ⟨g_m, g_s⟩ > 0: the rate ⟨g_m, g_s⟩ / (L‖g_s‖²) lowers the main loss by at "
    "least ⟨g_m, g_s⟩² / (2L‖g_s‖²)",
    source=f"talk-titans, 31:15, made precise; {SUN}, theorem 1",
    only=FLOATS,
)
def aligned_step_helps(x: Input, rotated: Input, W: Encoder, A: MainHead, B: RotationHead):
    xp = namespace(x, W)
    main, auxiliary = gradients(x, rotated, W, A, B)
    slope = xp.sum(main * auxiliary)
    slope, auxiliary = abs(slope), xp.where(slope < 0, -auxiliary, auxiliary)  # where they disagree, of −ℓ_s
    curvature = smoothness(x, A) * xp.sum(auxiliary * auxiliary)
    rate = xp.where(curvature > 0, slope / xp.where(curvature > 0, curvature, 1 + 0 * curvature), 0 * curvature)
    return cross_entropy(x, W - rate * auxiliary, A), cross_entropy(x, W, A) - rate * slope / 2
