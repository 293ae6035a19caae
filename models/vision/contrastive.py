"""The contrastive loss of CLIP: of n images and n texts, predict which belong together, from both sides.

    I_e = I_f/‖I_f‖,  T_e = T_f/‖T_f‖                   rows of length 1           Radford et al. 2021, figure 3
    logits = exp(t) I_e T_eᵀ                            (n, n), pairs on the diagonal
    loss_i = CE(rows of logits, 0 … n − 1)              the text of each image
    loss_t = CE(columns of logits, 0 … n − 1)           the image of each text
    loss = (loss_i + loss_t)/2

    I_f, T_f    features of images and texts, projected to the same number of channels
    t           the learned logarithm of the scale, 1/temperature: it starts at log(1/0.07), and training keeps the
                scale at 100 or less (section 2.5)

Zero-shot classification (section 3.1.2) is a linear classifier of I_e without a bias, whose weights are texts: for each
class exp(t) T_e of a prompt such as "a photo of a {class}". A class with several prompts has their mean direction
(section 3.1.4): the prompts' T_e are averaged, and the mean is normalised again.

The names are those of figure 3, which calls the loss along axis 0 of the logits loss_i; here loss_i is the one along
rows, as the sentence above it says. Their mean is the same.
"""

import math
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of

LOG_SCALE = math.log(1 / 0.07)  # t before training
MAX_LOG_SCALE = math.log(100)


def normalize(x: Any) -> Any:
    """Return x (…, D) with rows of length 1; a row of zeros, which has no direction, becomes NaN."""
    return x / namespace(x).sqrt(namespace(x).sum(x * x, axis=-1, keepdims=True))


def similarities(I_f: Any, T_f: Any, t: Any) -> Any:
    """Return logits (n, m) = exp(t) I_e T_eᵀ of images I_f (n, D) and texts T_f (m, D).

    Raises: ValueError for features that are no rows of the same width.
    """
    if I_f.ndim != 2 or T_f.ndim != 2 or I_f.shape[1] != T_f.shape[1]:
        shapes = f"{tuple(I_f.shape)} and {tuple(T_f.shape)}"
        raise ValueError(f"similarities: I_f and T_f have shapes {shapes}, expected (n, D) and (m, D)")
    return namespace(t).exp(t) * (normalize(I_f) @ normalize(T_f).mT)


def directions(logits: Any) -> tuple[Any, Any]:
    """Return (loss_i, loss_t) of logits (n, n) whose pairs are on the diagonal, in nats.

    Raises: ValueError for logits that are not square, or empty.
    """
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or logits.shape[0] == 0:
        raise ValueError(f"directions: logits have shape {tuple(logits.shape)}, expected (n, n), n ≥ 1")
    pairs = to_library_of(logits, np.arange(logits.shape[0]))
    return mg.cross_entropy(logits, pairs), mg.cross_entropy(logits.mT, pairs)


def contrastive_loss(logits: Any) -> Any:
    """Return (loss_i + loss_t)/2 of logits (n, n) whose pairs are on the diagonal, in nats."""
    loss_i, loss_t = directions(logits)
    return (loss_i + loss_t) / 2


def ensemble(T_f: Any) -> Any:
    """Return the mean direction (*classes, D) of several prompts' features T_f (*classes, prompts, D), of length 1.

    Raises: ValueError for no prompts.
    """
    if T_f.ndim < 2 or T_f.shape[-2] == 0:
        raise ValueError(f"ensemble: T_f has shape {tuple(T_f.shape)}, expected (*classes, prompts, D), prompts ≥ 1")
    return normalize(namespace(T_f).mean(normalize(T_f), axis=-2))
