"""Retrieval error of trained layers, attention and memories: the distance of read(k) from the value v of the key k.

    error = min ‖c read(k) − v‖ / ‖v‖ over c ≥ 0

c is free because a norm follows what memories read, which removes its length. The query is the key itself, as in the
talk on Titans (17:48, 19:48); trained queries may differ from the keys they look for.
"""

from typing import Any

import numpy as np

from models.attention import softmax
from models.blocks.block import MemoryBlock
from models.blocks.learner import LearnerBlock
from models.blocks.softmax import SoftmaxBlock
from models.language.lm import LanguageModel


def read_errors(model: LanguageModel, tokens: np.ndarray, at: slice) -> list[float]:
    """Return the mean error of each layer over the tokens `at`, after reading tokens (batch, T).

    Layers whose state is no matrix, such as those of recurrent networks and of test-time training, have none.
    """
    errors = []
    for layer, (inputs, state) in zip(model.layers, _runs(model, tokens), strict=True):
        if not isinstance(layer.block, SoftmaxBlock | MemoryBlock) or isinstance(layer.block, LearnerBlock):
            continue
        _, k, v, *_ = inputs
        if isinstance(layer.block, SoftmaxBlock):
            read, _ = softmax.quadratic(k, k, v, causal=False, scale=layer.block.scale)
        else:
            read = k @ state
        read, value = read[..., at, :], v[..., at, :]
        lengths = np.linalg.norm(read, axis=-1) * np.linalg.norm(value, axis=-1)
        cosine = np.sum(read * value, axis=-1) / np.maximum(lengths, np.finfo(lengths.dtype).tiny)
        errors.append(float(np.mean(np.sqrt(1 - np.clip(cosine, 0, 1) ** 2))))
    return errors


def _runs(model: LanguageModel, tokens: np.ndarray) -> list[tuple[tuple[Any, ...], Any]]:
    """Return the inputs that each layer's mechanism ran on, and its state at the end."""
    runs: list[tuple[tuple[Any, ...], Any]] = []

    def recording(run: Any) -> Any:
        def recorded(*inputs: Any, **options: Any) -> tuple[Any, Any]:
            y, state = run(*inputs, **options)
            runs.append((inputs, state))
            return y, state

        return recorded

    for layer in model.layers:
        vars(layer.block)["run"] = recording(layer.block.run)
    try:
        model(tokens)
    finally:
        for layer in model.layers:
            del vars(layer.block)["run"]
    return runs
