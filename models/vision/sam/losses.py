"""Losses of Segment Anything: focal and dice loss of a mask, the minimum over masks, and the error of their scores.

    focal  FL = −α_t (1 − p_t)^γ log p_t                            Lin et al. 2017, eq. 5; the mean over pixels
    dice   D = 1 − (2 Σ p m + ε)/(Σ p + Σ m + ε)                    Milletari et al. 2016, section 3, without squares
    mask   L = 20 FL + D                                            Kirillov et al. 2023, appendix A, "Losses"
    total  minₘ L[m] + mean (score − IoU)²                          appendix A, "Making the model ambiguity-aware"

    p    the probability σ(z) of a pixel to be in the mask, z its logit;  m  1 in the mask and 0 beside it
    p_t  p where m is 1 and 1 − p elsewhere; α_t is α and 1 − α likewise; α = ¼ and γ = 2, as in Lin et al.
    ε    1, which makes the loss of no pixels out of none 0; neither paper has it

Only the mask of the smallest loss is trained, so that three masks come to mean different things. The score of every
mask is trained, to the IoU of the mask that it has, which is a constant. Where the prompt is not ambiguous there is
one mask, and no minimum.
"""

from typing import Any

import minigrad as mg
from minigrad import namespace
from minigrad.engine import unwrap

FOCAL, ALPHA, GAMMA, SMOOTH = 20, 0.25, 2, 1


def focal(logits: Any, mask: Any, *, alpha: float = ALPHA, gamma: float = GAMMA) -> Any:
    """Return the mean over the pixels of FL, (…), for logits (…, H, W) and a mask of zeros and ones that broadcasts."""
    xp, signed = namespace(logits), (2 * mask - 1) * logits  # log p_t = log σ(signed)
    weight = alpha * mask + (1 - alpha) * (1 - mask)
    loss = -weight * mg.sigmoid(-signed) ** gamma * mg.log_sigmoid(signed)
    return xp.mean(loss, axis=(-2, -1))


def dice(probabilities: Any, mask: Any, *, smooth: float = SMOOTH) -> Any:
    """Return D, (…), for probabilities (…, H, W) and a mask of zeros and ones that broadcasts."""
    xp = namespace(probabilities)
    both = xp.sum(probabilities * mask, axis=(-2, -1))
    sizes = xp.sum(probabilities, axis=(-2, -1)) + xp.sum(mask, axis=(-2, -1))
    return 1 - (2 * both + smooth) / (sizes + smooth)


def iou(a: Any, b: Any) -> Any:
    """Return |a ∩ b| / |a ∪ b|, (…), of masks of zeros and ones (…, H, W) that broadcast; 1 where both are empty."""
    xp = namespace(a, b)
    both = xp.sum(a * b, axis=(-2, -1))
    either = xp.sum(a + b - a * b, axis=(-2, -1))
    empty = either == 0
    return xp.where(empty, 1, both) / xp.where(empty, 1, either)


def mask_loss(logits: Any, mask: Any) -> Any:
    """Return L, (…), for logits (…, H, W) and a mask of zeros and ones that broadcasts."""
    return FOCAL * focal(logits, mask) + dice(mg.sigmoid(logits), mask)


def prompt_loss(logits: Any, scores: Any, mask: Any, ambiguous: Any) -> Any:
    """Return the total loss of each prompt, (…).

    logits (…, 1 + M, H, W) and scores (…, 1 + M) are those of `SAM.decode`; mask is (…, H, W) of zeros and ones, and
    `ambiguous` (…) says whose M masks count: elsewhere the first one does.
    """
    xp, mask = namespace(logits), mask[..., None, :, :]
    loss = mask_loss(logits, mask)
    reached = iou(xp.astype(unwrap(logits) > 0, mask.dtype), mask)
    error = (scores - reached) ** 2
    of_masks = xp.min(loss[..., 1:], axis=-1) + xp.mean(error[..., 1:], axis=-1)
    return xp.where(ambiguous, of_masks, loss[..., 0] + error[..., 0])
