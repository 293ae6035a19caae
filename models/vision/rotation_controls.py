"""Controls of test-time training by rotation: without the auxiliary task, against fine-tuning, and its gradients.

    alone        a network that was trained on digits alone, without the head for rotations
    probe        the digit by ridge regression on the features h: of a network trained on rotations alone, and of none
    tuned        the network trained on, with labels, on training images that are shifted: as at test time, or otherwise
    alignment    cos(g_m, g_s) of the encoder's gradients of ℓ_digit and ℓ_turn on one test image, and the gain
                 ℓ_digit(W) − ℓ_digit(W − η g_s) of one step

What they decide is said in the talk on Titans at 28:38, 30:16 and 31:15.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np

import minigrad as mg
from models.vision.rotation_ttt import (
    SHIFTS,
    Weights,
    accuracy_online,
    accuracy_reset,
    adapted,
    dataset,
    digit_loss,
    encoded,
    train,
    trained,
    turn_loss,
)

RIDGE = 1e-3  # of the probe, times the number of images


def measure(seed: int, rate: float, images: int, training: int, tuning: int) -> Iterator[tuple[str, Any]]:
    """Yield a name and what was measured: accuracies without steps, of probes, online and tuned; alignment by shift."""
    rng = np.random.default_rng(seed)
    untrained = Weights(rng)
    joint, alone, turning = (train(rng, training, tasks=tasks) for tasks in (("digit", "turn"), ("digit",), ("turn",)))
    clean, labels = (part[:images] for part in dataset("held_out"))
    shifted = {name: shift(clean, rng) for name, shift in SHIFTS.items()}

    def accuracies(weights: Weights) -> dict[str, float]:
        return {name: accuracy_reset(weights, x, labels, 0, rate) for name, x in shifted.items()}

    yield "without steps", {"joint": accuracies(joint), "alone": accuracies(alone)}
    networks = {"untrained": untrained, "rotations": turning, "digits": alone, "both": joint}
    yield "probes", {name: probe(weights, images) for name, weights in networks.items()}
    yield "alignment", {name: alignment(joint, x, labels, rate) for name, x in shifted.items()}
    yield "online", {name: accuracy_online(joint, x, labels, 1, rate) for name, x in shifted.items()}
    tuned = {}
    for name, shift in SHIFTS.items():
        seen, answers = dataset("train")
        tuned[name] = accuracies(trained(deepcopy(joint), shift(seen, rng), answers, rng, tuning))
    yield "tuned", tuned


def probe(weights: Weights, images: int) -> float:
    """Return the accuracy on held-out digits of a linear classifier of the features, by ridge regression."""

    def features(x: np.ndarray) -> np.ndarray:
        h = np.asarray(encoded(weights.W, weights.b, x), np.float64)
        return np.concatenate([h, np.ones((len(h), 1))], axis=1)

    (x, y), (held_out, labels) = dataset("train"), (part[:images] for part in dataset("held_out"))
    H = features(x)
    classifier = np.linalg.solve(H.T @ H + RIDGE * len(H) * np.eye(H.shape[1]), H.T @ np.eye(10)[y])
    return float(np.mean(np.argmax(features(held_out) @ classifier, axis=1) == labels))


def alignment(weights: Weights, images: np.ndarray, labels: np.ndarray, rate: float) -> dict[str, float]:
    """Return the mean cosine of both gradients on an image, the share above 0, and the mean gains of one step.

    "with" is the gain where the gradients' inner product is positive, "against" where it is not; 0 where there is none.
    """
    W, b = adapted(weights, images, 0, rate)

    def loss(W: Any, b: Any) -> Any:
        return mg.sum(digit_loss(W, b, images[:, None, :], labels[:, None]))

    main = _flat(mg.grad(loss, (0, 1))(W, b))
    auxiliary = _flat(mg.grad(lambda W, b: turn_loss(W, b, images), (0, 1))(W, b))
    product = np.sum(main * auxiliary, axis=1)
    lengths = np.linalg.norm(main, axis=1) * np.linalg.norm(auxiliary, axis=1)
    before, after = (
        np.asarray(digit_loss(*adapted(weights, images, steps, rate), images[:, None, :], labels[:, None]))[:, 0]
        for steps in (0, 1)
    )
    gain, positive = before - after, product > 0
    return {
        "cosine": float(np.mean(product / np.maximum(lengths, np.finfo(lengths.dtype).tiny))),
        "positive": float(np.mean(positive)),
        "gain": float(np.mean(gain)),
        "with": float(np.mean(gain[positive])) if positive.any() else 0.0,
        "against": float(np.mean(gain[~positive])) if not positive.all() else 0.0,
    }


def _flat(slopes: Any) -> np.ndarray:
    """Return the encoder's part of gradients (W, b) as rows, one an image."""
    return np.concatenate([np.reshape(part[k], (len(part[k]), -1)) for part in slopes for k in "12"], axis=1)
