"""The layout of the weights of an inner model, which test-time training and Titans train, as their kernels take them.

The wrappers of the CUDA kernels and the Numba kernels in `models.kernels` share it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class WeightLayout(NamedTuple):
    """Layout of the arrays of weights: a matrix for each layer, then γ and β where the model is inside a norm."""

    bias: tuple[bool, ...]  # for each layer: whether its last row is a bias, the weights of a feature that is 1
    norm: bool

    @property
    def depth(self) -> int:
        """Return the number of layers."""
        return len(self.bias)

    def split(
        self, label: str, weights: Sequence[Any], features: int, *, models: int = 1
    ) -> tuple[list[list[Any]], list[Any]]:
        """Return ([layers of each of `models` models], [γ, β] or []) for models of inputs with this many features.

        Raises ValueError where the number of arrays, or of the rows of a layer, is another.
        """
        expected, layers = models * self.depth + 2 * self.norm, f"{models} × {self.depth} layers"
        if len(weights) != expected:
            parts = f"{layers} and a norm" if self.norm else f"{layers} without a norm"
            raise ValueError(f"{label}: {len(weights)} arrays of weights, expected {expected} for {parts}")
        split = [list(weights[i * self.depth : (i + 1) * self.depth]) for i in range(models)]
        for i, model in enumerate(split):
            rows = features
            for j, (layer, bias) in enumerate(zip(model, self.bias, strict=True)):
                if layer.shape[-2] != rows + bias:
                    inputs = f"{rows} features and a bias" if bias else f"{rows} features without a bias"
                    at = f"weights[{i * self.depth + j}]"
                    raise ValueError(f"{label}: {at} has {layer.shape[-2]} rows, expected {rows + bias} for {inputs}")
                rows = layer.shape[-1]
        return split, list(weights[models * self.depth :])
