"""Overlap of masks, and the losses of Segment Anything: IoU, focal and dice, and the minimum over masks."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from models.vision.sam import losses
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import LARGE, Draw, Exact, Sizes, Strategy

CHAPTER = 25

SA = "kirillov2023"
UNIT = 2.0**-53


def zeros_and_ones(draw: Draw, shape: tuple[int, ...], sizes: Sizes) -> Exact:
    """Draw masks, each with a pixel at the first place."""
    count = int(np.prod(shape))
    bits = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype=np.uint8) % 2
    mask = np.vectorize(Fraction, otypes=[object])(bits.astype(int)).reshape(shape)
    mask[..., 0, 0] = Fraction(1)
    return mask


SIDES = {"H": st.integers(2, 4), "W": st.integers(2, 4)}
Mask = Annotated[Any, Strategy("*batch H W", zeros_and_ones, differentiable=False, sizes=SIDES)]
Logits = Annotated[Any, Strategy("*batch H W", LARGE, sizes=SIDES)]
Sharpness = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 40)))]


@identity("The IoU of a mask with itself is 1", source=f"{SA}, section 3", exact=True, derivatives=False)
def a_mask_is_itself(mask: Mask):
    return losses.iou(mask, mask), 1 + 0 * mask[..., 0, 0]


@identity("IoU = |a ∩ b| / (|a| + |b| − |a ∩ b|)", source=f"{SA}, section 3", exact=True, derivatives=False)
def iou_is_intersection_over_union(a: Mask, b: Mask):
    xp = namespace(a, b)
    both, first, second = (xp.sum(x, axis=(-2, -1)) for x in (a * b, a, b))
    return losses.iou(a, b) * (first + second - both), both


@identity(
    "Dice = 2 IoU/(1 + IoU): the two order masks alike",
    source="milletari2016, section 3; talk-meeting, (4)",
    exact=True,
    derivatives=False,
)
def dice_is_a_function_of_iou(a: Mask, b: Mask):
    overlap = losses.iou(a, b)
    return (1 - losses.dice(a, b, smooth=0)) * (1 + overlap), 2 * overlap


@identity(
    "The dice loss is 0 for the mask itself, and 1 − ε/(|p| + |m| + ε) for one that it does not meet",
    source="milletari2016, section 3",
    exact=True,
    derivatives=False,
)
def limits_of_the_dice_loss(mask: Mask):
    xp = namespace(mask)
    beside, pixels = 1 - mask, mask.shape[-1] * mask.shape[-2]
    zero = 0 * xp.sum(mask, axis=(-2, -1))
    return (losses.dice(mask, mask), losses.dice(beside, mask) * (pixels + 1)), (zero, zero + pixels)


@identity(
    "With γ = 0 the focal loss is the cross entropy, weighted α in the mask and 1 − α beside it",
    source="lin2017, eq. 3 and 5",
)
def focal_without_focus_is_cross_entropy(z: Logits, mask: Mask):
    xp = namespace(z)
    log_p, log_rest = (-xp.log(1 + xp.exp(x)) for x in (-z, z))
    weighted = -0.25 * mask * log_p - 0.75 * (1 - mask) * log_rest
    return losses.focal(z, mask, gamma=0.0), xp.mean(weighted, axis=(-2, -1))


@identity("The focal loss is −α_t (1 − p_t)^γ log p_t, with γ = 2 and α = ¼", source="lin2017, eq. 5")
def the_focal_loss_is_the_paper_s(z: Logits, mask: Mask):
    xp = namespace(z)
    p = 1 / (1 + xp.exp(-z))
    of_mask, beside = -0.25 * (1 - p) ** 2 * xp.log(p), -0.75 * p**2 * xp.log(1 - p)
    return losses.focal(z, mask), xp.mean(mask * of_mask + (1 - mask) * beside, axis=(-2, -1))


@bounded(
    "Logits ±s that are right everywhere have a focal loss of at most e^(−3s), and a dice loss of at most H W e^(−s)",
    source="lin2017, eq. 5; milletari2016, section 3",
    only=("float64",),
)
def a_perfect_prediction_costs_nothing(mask: Mask, s: Sharpness):
    logits, pixels = s * (2 * mask - 1), mask.shape[-1] * mask.shape[-2]
    loss = np.stack([losses.focal(logits, mask), losses.dice(mg.sigmoid(logits), mask)])
    one = np.ones_like(loss[0])
    return loss, np.stack([np.exp(-3.0 * s) * one, (pixels * np.exp(-1.0 * s) + 32 * UNIT) * one])


@identity(
    "A mask's loss is 20 times the focal loss and the dice loss; of three masks the least counts, of scores the mean",
    source=f"{SA}, appendix A, losses",
    only=("float64",),
)
def the_least_loss_counts(z: Logits, mask: Mask):
    candidates = [z, 2 * z + 1, -z, z / 3]
    logits, scores = (
        np.stack(candidates, axis=-3),
        np.stack([0.25 * (i + 1) + 0 * z[..., 0, 0] for i in range(4)], axis=-1),
    )
    each, errors = [], []
    for i, candidate in enumerate(candidates):
        each.append(20 * losses.focal(candidate, mask) + losses.dice(mg.sigmoid(candidate), mask))
        errors.append((0.25 * (i + 1) - losses.iou((candidate > 0) * 1.0, mask)) ** 2)
    several = np.minimum(np.minimum(each[1], each[2]), each[3]) + (errors[1] + errors[2] + errors[3]) / 3
    totals = tuple(losses.prompt_loss(logits, scores, mask, np.array(ambiguous)) for ambiguous in (True, False))
    return totals, (several, each[0] + errors[0])


@refuted(
    "Segment Anything learns without labels (its loss compares with masks: another mask, another loss)",
    source=f"{SA}, sections 4 and 5; talk-papers, Segment Anything",
    instead="sam_losses.the_least_loss_counts",
)
def no_labels_are_read(z: Logits, mask: Mask):
    return losses.mask_loss(z, mask), losses.mask_loss(z, 1 - mask)
