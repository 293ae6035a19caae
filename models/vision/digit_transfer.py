"""Transfer: a ViT that has learnt the digits 0 to 4 learns 5 to 9 from a few examples, beside one that starts anew.

    pre-training   on all digits 0 to 4 of the training part
    fine-tuning    with a new linear head that starts at 0 (Dosovitskiy et al. 2021, section 3.2), of all weights, on n
                   examples of each of the digits 5 to 9
    from scratch   the same fine-tuning, from random weights

Both are measured on the held-out digits 5 to 9, of which chance is 1/5. Deviations: 8 × 8 pixels and some 700 pictures
to pre-train on, where the paper has up to 303 million; AdamW throughout, where the paper fine-tunes by SGD.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from models.vision.digit_classifiers import CLASSES, Sizes, fitted, make, pictures
from models.vision.vit import ViT

FIRST_NEW = 5  # of the digits that are fine-tuned on


@dataclass(frozen=True)
class Transferred:
    """The accuracy on held-out new digits after fine-tuning on `shots` of each."""

    seed: int
    shots: int
    pretrained: float
    scratch: float


def transfer(
    sizes: Sizes, shots: Sequence[int], steps: int, seed: int, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Transferred]:
    """Yield the accuracies for each number of shots, fine-tuning for so many steps; fewer where it was stopped."""
    rng = np.random.default_rng(seed)
    pixels, labels = pictures("train", sizes.side)
    model = make("vit", sizes, rng)
    start = deepcopy(model)
    model = fitted(model, pixels, labels, np.flatnonzero(labels < FIRST_NEW), sizes, rng, stopped)
    order = rng.permutation(len(pixels))
    for count in shots:
        chosen = np.concatenate([order[labels[order] == digit][:count] for digit in range(FIRST_NEW, CLASSES)])
        accuracies = []
        for before in (model, start):
            if before is None:
                return
            tuned = with_new_head(before)
            of = replace(sizes, steps=steps)
            if fitted(tuned, pixels, labels, chosen, of, np.random.default_rng(seed), stopped) is None:
                return
            accuracies.append(accuracy(tuned, sizes))
        yield Transferred(seed, count, *accuracies)


def with_new_head(model: ViT) -> Any:
    """Return a copy whose head is 0."""
    copy: Any = deepcopy(model)
    copy.head.weight[...], copy.head.bias[...] = 0, 0
    return copy


def accuracy(model: ViT, sizes: Sizes) -> float:
    """Return the share of held-out new digits that are recognised."""
    pixels, labels = pictures("held_out", sizes.side)
    new = labels >= FIRST_NEW
    return float(np.mean(np.argmax(model(pixels[new]), axis=-1) == labels[new]))
