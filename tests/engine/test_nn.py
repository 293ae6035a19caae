"""Layers are containers of arrays; optimisers write them in place; seeds make runs identical to the bit."""

import math

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, optim


def rng(seed=0):
    return np.random.default_rng(seed)


class Net(nn.Module):
    def __init__(self, rng, dtype=np.float64):
        self.embed = nn.Embedding(7, 4, rng=rng, dtype=dtype)
        self.layers = [nn.Linear(4, 4, rng=rng, dtype=dtype), {"norm": nn.LayerNorm(4, dtype=dtype)}]
        self.rms = nn.RMSNorm(4, dtype=dtype)
        self.conv = nn.Conv1d(4, 3, rng=rng, dtype=dtype)
        self.out = nn.Linear(4, 2, bias=False, rng=rng, dtype=dtype)
        self.name = "net"

    def __call__(self, tokens):
        x = self.layers[1]["norm"](self.layers[0](self.embed(tokens)))
        y, _ = self.conv(self.rms(x))
        return self.out(mg.silu(y))


TOKENS = rng(1).integers(0, 7, (3, 5))


def test_parameters_have_dotted_names():
    names = list(Net(rng()).named_parameters())
    assert names == [
        "embed.weight",
        "layers.0.weight",
        "layers.0.bias",
        "layers.1.norm.weight",
        "layers.1.norm.bias",
        "rms.weight",
        "conv.weight",
        "conv.bias",
        "out.weight",
    ]


def test_a_module_is_differentiated_as_a_container():
    net = Net(rng())

    def loss(net):
        return mg.sum(net(TOKENS) ** 2)

    value, grads = mg.value_and_grad(loss)(net)
    assert isinstance(value, (np.ndarray, np.generic)) and isinstance(grads, Net)
    assert type(net.out.weight) is np.ndarray and type(net(TOKENS)) is np.ndarray  # outside, plain NumPy
    mg.check_grads(loss, (net,), order=2)
    ours, theirs = net.named_parameters(), grads.named_parameters()
    assert {n: p.shape for n, p in ours.items()} == {n: g.shape for n, g in theirs.items()}


def test_load_parameters_takes_all_or_nothing():
    net, other = Net(rng()), Net(rng(1))
    expected = other.named_parameters()
    before = {n: p.copy() for n, p in net.named_parameters().items()}
    bad = [
        (
            {n: p for n, p in expected.items() if n != "conv.bias"},
            "load_parameters: conv.bias is missing, expected the names of Net",
        ),
        ({**expected, "extra": np.ones(1)}, "load_parameters: extra is unknown, expected the names of Net"),
        ({**expected, "rms.weight": np.ones(5)}, "load_parameters: rms.weight has shape (5,), expected (4,)"),
        (
            {**expected, "out.weight": np.full((2, 4), np.nan)},
            "load_parameters: out.weight holds NaN or infinity, expected finite numbers",
        ),
    ]
    for parameters, message in bad:
        with pytest.raises(ValueError) as excinfo:
            net.load_parameters(parameters)
        assert str(excinfo.value) == message
        assert all(np.array_equal(p, before[n]) for n, p in net.named_parameters().items())
    net.load_parameters(expected)
    np.testing.assert_array_equal(net(TOKENS), other(TOKENS))
    other.rms.weight[:] = 0  # loading copied
    assert net.rms.weight.any()


def test_conv1d_continues_from_its_state():
    conv, x = nn.Conv1d(3, 4, rng=rng(), dtype=np.float64), rng(2).standard_normal((2, 7, 3))
    full, end = conv(x)
    state, parts = None, []
    for t in range(7):
        y, state = conv(x[:, t : t + 1], state)
        parts.append(y)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), full, rtol=1e-14)
    np.testing.assert_array_equal(state, end)
    changed = x.copy()
    changed[:, 4:] += 1
    np.testing.assert_array_equal(conv(changed)[0][:, :4], full[:, :4])


def test_dropout_needs_a_generator_and_keeps_the_mean():
    drop, x = nn.Dropout(0.25), np.ones(20_000)
    assert drop(x) is x
    y = drop(x, rng(3))
    np.testing.assert_array_equal(y, drop(x, rng(3)))
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    assert abs(y.mean() - 1) < 5 * math.sqrt(0.25 / 0.75 / x.size)
    np.testing.assert_array_equal(mg.grad(lambda x: mg.sum(drop(x, rng(3))))(x), y)
    with pytest.raises(ValueError, match="^Dropout: got p = 1.0, expected 0 ≤ p < 1$"):
        nn.Dropout(1.0)


class Point(nn.Module):
    def __init__(self, x):
        self.x = np.array(x, dtype=np.float64)


def test_sgd_by_hand():
    p, opt = Point([[1.0, -2.0]]), optim.SGD(0.1, momentum=0.5)
    g = Point([[1.0, 1.0]])
    opt.step(p, g)
    np.testing.assert_allclose(p.x, [[0.9, -2.1]])
    opt.step(p, g)  # v = 0.5 · 1 + 1
    np.testing.assert_allclose(p.x, [[0.75, -2.25]])
    opt.step(p, g, lr=0.0)
    np.testing.assert_allclose(p.x, [[0.75, -2.25]])


def test_adamw_by_hand():
    """The first step moves by lr · sign(g), since m̂/√v̂ = g/|g|, after the decay."""
    p, opt = Point([[1.0, -2.0]]), optim.AdamW(0.1, eps=0.0, weight_decay=0.5)
    opt.step(p, Point([[3.0, -4.0]]))
    np.testing.assert_allclose(p.x, [[1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1]])
    bias = Point([1.0])
    optim.AdamW(0.1, eps=0.0, weight_decay=0.5).step(bias, Point([3.0]))
    np.testing.assert_allclose(bias.x, [0.9])  # vectors are not decayed
    number = Point(1.0)
    _, gradient = mg.value_and_grad(lambda p: 3 * p.x)(number)
    optim.AdamW(0.1, eps=0.0, weight_decay=0.5).step(number, gradient)
    np.testing.assert_allclose(number.x, 0.9)


def test_training_is_reproducible_and_resumes_from_its_state():
    def run(steps, net, opt):
        for _ in range(steps):
            _, g = mg.value_and_grad(lambda n: mg.cross_entropy(n(TOKENS), TOKENS % 2))(net)
            opt.step(net, optim.clip_by_global_norm(g, 1.0)[0])
        return net.named_parameters()

    full, again = (run(6, Net(rng(4), np.float32), optim.AdamW(0.01)) for _ in range(2))
    net, opt = Net(rng(4), np.float32), optim.AdamW(0.01)
    run(3, net, opt)
    resumed = optim.AdamW(0.01)
    resumed.load_state_dict(opt.state_dict())
    parts = run(3, net, resumed)
    for name, p in full.items():
        assert p.dtype == np.float32
        assert p.tobytes() == again[name].tobytes() == parts[name].tobytes()
    with pytest.raises(ValueError, match="expected a member 'step'"):
        resumed.load_state_dict({"m.x": np.ones(1)})


def test_minimise_steps_along_the_clipped_gradient_of_what_is_not_fixed():
    class Pair(nn.Module):
        def __init__(self):
            self.parts = [Point([3.0]), Point([4.0])]

    def loss(pair):
        return mg.sum(pair.parts[0].x ** 2 / 2 + pair.parts[1].x ** 2 / 2)

    pair = Pair()
    assert optim.SGD(1.0).minimise(pair, loss) == 12.5
    np.testing.assert_array_equal([part.x[0] for part in pair.parts], [0.0, 0.0])
    pair = Pair()
    optim.SGD(1.0).minimise(pair, loss, lr=0.5, clip=1.0)
    np.testing.assert_allclose([part.x[0] for part in pair.parts], [3 - 0.3, 4 - 0.4])
    pair, opt = Pair(), optim.AdamW(1.0)
    opt.minimise(pair, loss, fixed=["parts.0.x"])
    assert pair.parts[0].x[0] == 3.0 and pair.parts[1].x[0] < 4.0 and set(opt.state) == {"m.parts.1.x", "v.parts.1.x"}
    pair = Pair()
    optim.SGD(1.0).minimise(pair, loss, clip=1.0, fixed=["parts.0.x"])  # whose gradient is no part of the norm
    np.testing.assert_allclose([part.x[0] for part in pair.parts], [3.0, 3.0])
    with pytest.raises(ValueError, match="^remove_parameters: parts.2.x is unknown, expected the names of Pair$"):
        opt.minimise(pair, loss, fixed=["parts.2.x"])


def test_clipping():
    g = {"a": np.array([3.0]), "b": np.array([4.0])}
    clipped, norm = optim.clip_by_global_norm(g, 1.0)
    assert norm == 5.0 and clipped["a"][0] == pytest.approx(0.6) and g["a"][0] == 3.0
    assert optim.clip_by_global_norm(g, 6.0)[0] is g
    with pytest.raises(ValueError, match="^clip_by_global_norm: the gradients' norm is nan, expected a finite number$"):
        optim.clip_by_global_norm({"a": np.array([np.nan])}, 1.0)


def test_cosine_with_warm_up():
    rate = [optim.cosine(s, steps=10, warmup=2, peak=1.0, floor=0.1) for s in range(12)]
    assert rate[:3] == [0.5, 1.0, 1.0] and rate[6] == pytest.approx(0.55) and rate[10] == rate[11] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rate[1:], rate[2:], strict=False))


def test_learning_rate_is_checked():
    with pytest.raises(ValueError, match="^AdamW: got lr = -1, expected lr ≥ 0$"):
        optim.AdamW(-1)
