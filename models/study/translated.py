"""Measurements on a trained Transformer: a translation, its attention to the source, and mistakes on other texts."""

from typing import Any

import numpy as np

from models.language.decoding import greedy
from models.tasks.translation import END, PAD, START
from models.train import Training

SHOWN = 4  # mistakes that are listed


def translated(training: Training, text: str) -> dict[str, Any]:
    """Return a text's translation with the weights of every cross-attention head, and mistakes on held-out items.

    {"source": characters, "target": characters, "weights": (layers, H, T, S), "mistakes": [[source, decoded, target]]}
    """
    model, task = training.objective.evaluated(training.model, training.optimizer), training.run.make_translation()
    question = np.array(task.question(text))
    target = greedy(model, question[None], pad=PAD, start=START, end=END)[0]
    weights = model.cross_attention(question[None], np.array([[START, *target[:-1]]]), pad=PAD)
    mistakes = []
    for sources, targets in task.eval_batches(np.random.default_rng([training.run.seed, 2])).values():
        decoded = greedy(model, sources, pad=PAD, start=START, end=END, tokens=targets.shape[1] - 1)
        for row in zip(sources, decoded, targets, strict=True):
            texts = [task.characters.decode(tokens) for tokens in row]
            if texts[1] != texts[2]:
                mistakes.append(texts)
    return {
        "source": [task.characters.name(token) for token in question],
        "target": [task.characters.name(token) for token in target],
        "weights": [np.round(layer[0].astype(float), 3).tolist() for layer in weights],
        "mistakes": mistakes[:SHOWN],
    }
