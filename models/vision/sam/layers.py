"""Layers that the parts of Segment Anything share: convolutions with their weights, and a perceptron of several layers.

They are initialised as `nn.Linear` is: uniformly in ±1/√inputs, inputs being the numbers that one output sees.
"""

import numpy as np

import minigrad as mg
from minigrad.nn import Linear, Module
from models.vision import convolution


class Conv2d(Module):
    """`convolution.conv2d` of maps (*batch, H, W, inputs), with its weights (outputs, inputs, kernel, kernel)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        rng: np.random.Generator,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        bound = (inputs * kernel * kernel) ** -0.5
        self.weight = rng.uniform(-bound, bound, (outputs, inputs, kernel, kernel)).astype(np.float32)
        self.bias = rng.uniform(-bound, bound, outputs).astype(np.float32) if bias else None
        self.stride, self.padding = stride, padding

    def __call__(self, x):
        """Return the map (*batch, H′, W′, outputs)."""
        return convolution.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class ConvTranspose2d(Module):
    """`convolution.conv_transpose2d` of maps (*batch, H, W, inputs), with weights (inputs, outputs, scale, scale)."""

    def __init__(self, inputs: int, outputs: int, scale: int, rng: np.random.Generator) -> None:
        bound = inputs**-0.5
        self.weight = rng.uniform(-bound, bound, (inputs, outputs, scale, scale)).astype(np.float32)
        self.bias = rng.uniform(-bound, bound, outputs).astype(np.float32)

    def __call__(self, x):
        """Return the map (*batch, scale H, scale W, outputs)."""
        return convolution.conv_transpose2d(x, self.weight, self.bias)


class MLP(Module):
    """Linear layers with ReLUs between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int, layers: int, rng: np.random.Generator) -> None:
        widths = [inputs, *[hidden] * (layers - 1), outputs]
        self.layers = [Linear(*pair, rng=rng) for pair in zip(widths[:-1], widths[1:], strict=True)]

    def __call__(self, x):
        """Return (*batch, outputs) for x (*batch, inputs)."""
        for layer in self.layers[:-1]:
            x = mg.relu(layer(x))
        return self.layers[-1](x)
