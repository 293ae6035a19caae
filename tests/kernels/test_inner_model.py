"""Weights of another layout than the named one: an error of one line, from the Numba and the CUDA kernels alike."""

import re

import numpy as np
import pytest

from gpu.inner_model import WeightLayout
from gpu.kernels import titans as cuda_titans
from gpu.kernels import ttt as cuda_ttt
from models.kernels import titans, ttt

K, T = 3, 4
MATRIX, BIAS, NORM = np.zeros((1, K, K)), np.zeros((1, K + 1, K)), np.zeros((1, 1, K))
WITHOUT, BIASED, NORMED = (
    WeightLayout((False,), norm=False),
    WeightLayout((True,), norm=False),
    WeightLayout((False,), norm=True),
)
WRONG = [
    ([MATRIX], BIASED, "weights[0] has 3 rows, expected 4 for 3 features and a bias"),
    ([BIAS], WITHOUT, "weights[0] has 4 rows, expected 3 for 3 features without a bias"),
    ([MATRIX], NORMED, "{0} arrays of weights, expected {1} for {0} × 1 layers and a norm"),
    ([MATRIX, NORM, NORM], WITHOUT, "{1} arrays of weights, expected {0} for {0} × 1 layers without a norm"),
]


def call(module, model, layout):
    """Run a kernel on a model, which Titans has three of: at the start of the batch, M and S."""
    titan = module in (titans, cuda_titans)
    weights = [*[model[0]] * (3 if titan else 1), *model[1:]]
    options = {"layout": layout, "batch_size": T, "on_losses": lambda losses: None} | ({"left": T} if titan else {})
    gates = np.zeros((3 if titan else 2, 1, T))
    return module.forward(*np.zeros((3, 1, T, K)), *gates, *weights, **options)


@pytest.mark.parametrize("module", [titans, ttt, cuda_titans, cuda_ttt], ids=lambda module: module.__name__)
@pytest.mark.parametrize(("model", "layout", "message"), WRONG)
def test_weights_of_another_layout(module, model, layout, message):
    models = 3 if module in (titans, cuda_titans) else 1
    expected = f"{module.__name__.rpartition('.')[2]}: {message.format(models, models + 2)}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        call(module, model, layout)


def test_the_second_layer_takes_the_columns_of_the_first():
    layers = [np.zeros((1, 3, 5)), np.zeros((1, 5, 2))]
    (model,), norm = WeightLayout((False, False), norm=False).split("test", layers, 3)
    assert (len(model), norm) == (2, [])
    with pytest.raises(ValueError, match=r"^test: weights\[1\] has 5 rows, expected 6 for 5 features and a bias$"):
        WeightLayout((False, True), norm=False).split("test", layers, 3)


def test_the_kernel_of_one_layer_names_the_layers_it_does_not_take():
    with pytest.raises(ValueError, match="^ttt: layout has 2 layers, expected 1$"):
        call(ttt, [MATRIX, MATRIX], WeightLayout((False, False), norm=False))
