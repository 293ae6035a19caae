"""Handwritten digits, pixel by pixel: classify a sequence of 64 brightness tokens.

    p₁ p₂ … p₆₄        answer at the last pixel: 17 + digit          row by row, each pixel 0 … 16

The sequential image classification of Le et al. 2015 ("A Simple Way to Initialize Recurrent Networks of Rectified
Linear Units"), by which LSSL and S4 were measured too (Gu et al. 2021 and 2022). Deviation: theirs are MNIST's 28 × 28
pixels, these the 8 × 8 that scikit-learn carries (Alpaydin and Kaynak 1998): 1797 images, of which one fixed fifth is
held out. A pixel is a token here, where theirs is a number.
"""

from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from models.errors import UserError
from models.tasks.recall import IGNORE, Batch

SHADES, CLASSES = 17, 10
HELD_OUT = 360  # of 1797 images
SPLIT = 0  # the seed of the split: the same for every run, whatever its own


@dataclass(frozen=True)
class Digits:
    """Images `(n, 64)` and digits `(n,)`, cut once into a training part and a held-out part."""

    train: Batch
    held_out: Batch
    digest: str
    vocabulary: int = SHADES + CLASSES

    def batch(self, rng: np.random.Generator, batch: int) -> Batch:
        """Return (tokens, targets), each `(batch, 64)`, of images drawn from the training part."""
        images, digits = self.train
        indices = rng.integers(0, len(images), size=batch)
        return with_question(images[indices], digits[indices])

    def eval_batches(self, rng: np.random.Generator) -> dict[str, Batch]:
        """Return the held-out images, always all of them."""
        return {"digits": with_question(*self.held_out)}


def with_question(images: np.ndarray, digits: np.ndarray) -> Batch:
    """Return (tokens, targets), each `(n, 64)`; targets are `IGNORE` except at the last pixel."""
    targets = np.full_like(images, IGNORE)
    targets[:, -1] = SHADES + digits
    return images, targets


def load_digits() -> Digits:
    """Read the images and split them.

    Raises: UserError when scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        hint = "which the extra 'study' installs: pip install -e '.[study]'"
        raise UserError(f"task digits: expected scikit-learn, {hint}") from None
    images, digits = (part.astype(np.int64) for part in datasets.load_digits(return_X_y=True))
    order = np.random.default_rng(SPLIT).permutation(len(images))
    images, digits = images[order], digits[order]
    digest = sha256(images.tobytes() + digits.tobytes()).hexdigest()[:12]
    return Digits((images[HELD_OUT:], digits[HELD_OUT:]), (images[:HELD_OUT], digits[:HELD_OUT]), digest)
