"""Recurrent networks against torch.nn.LSTM and torch.nn.RNN, in float64: values, final states and all gradients.

Their weights are taken as they are stored, with both biases.
"""

import numpy as np
import pytest

from models.recurrent import lstm, rnn

FORMS = ["recurrent", "projected", "fused"]
SIZES = [(1, 1, 1, 1), (3, 7, 5, 4), (2, 20, 3, 17)]  # batch, T, D, H


def inputs(module, batch, T, D, H):
    """Return x, the four parameters of a module by PyTorch's names, and the initial states."""
    rng = np.random.default_rng(T)
    parameters = {name: parameter.detach().numpy().copy() for name, parameter in module.named_parameters()}
    states = {name: rng.normal(size=(batch, H)) for name in ("h", "c")[: 2 if "LSTM" in type(module).__name__ else 1]}
    return {"x": rng.normal(size=(batch, T, D)), **parameters, **states}


def called(torch, module):
    """Return a module as a function of its input, parameters and states, which returns y and the final states."""

    def run(x, W_ih, W_hh, b_ih, b_hh, *states):
        states = tuple(state[None] for state in states)
        function = torch.lstm if len(states) == 2 else torch.rnn_tanh
        start = states if len(states) == 2 else states[0]
        y, *after = function(x, start, (W_ih, W_hh, b_ih, b_hh), True, 1, 0.0, True, False, True)
        with torch.no_grad():
            expected, _ = module(x, start)  # the module itself
        assert torch.equal(y, expected)
        return (y, *(state[0] for state in after))

    return run


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sizes", SIZES)
def test_lstm(form, sizes, torch, compare):
    torch.manual_seed(0)
    module = torch.nn.LSTM(*sizes[2:], batch_first=True, dtype=torch.float64)

    def ours(x, weight_ih, weight_hh, bias_ih, bias_hh, h, c):
        y, state = getattr(lstm, form)(x, weight_ih, weight_hh, bias_ih + bias_hh, state=(h, c))
        return (y, *state)

    compare(ours, called(torch, module), inputs(module, *sizes), 1e-12)


@pytest.mark.parametrize("form", ["recurrent", "fused"])
@pytest.mark.parametrize("sizes", SIZES)
def test_rnn(form, sizes, torch, compare):
    torch.manual_seed(0)
    module = torch.nn.RNN(*sizes[2:], batch_first=True, dtype=torch.float64)

    def ours(x, weight_ih, weight_hh, bias_ih, bias_hh, h):
        return getattr(rnn, form)(x @ weight_ih.mT + bias_ih + bias_hh, weight_hh, state=h)

    compare(ours, called(torch, module), inputs(module, *sizes), 1e-12)
