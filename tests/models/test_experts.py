"""The mixture of experts: choices by hand, what an expert is given, gradients, and copies with one thing wrong."""

import numpy as np
import pytest

import minigrad as mg
from models.blocks.experts import ExpertsConfig, MixtureOfExperts, Routing, largest, mixture, route
from tests.copies import copy_of, first_failure

rng = np.random.default_rng(0)
SCORES = np.array([0.1, 0.9, 0.5, 0.6, 0.7, 0.2])


def choose(scores, *, bias=0.0, **options):
    """Return the weights of the chosen experts by their numbers."""
    chosen, weights = route(scores, np.full(6, bias) if np.isscalar(bias) else np.array(bias), Routing(6, **options))
    return dict(zip(chosen.tolist(), weights.tolist(), strict=True))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"count": 2, "renormalise": False}, {1: 0.9, 4: 0.7}),
        ({"count": 2}, {1: 0.9 / 1.6, 4: 0.7 / 1.6}),
        ({"count": 1, "factor": 2.5}, {1: 2.5}),
        ({"count": 2, "renormalise": False, "bias": [0, -1, 0, 0, 0, 1]}, {5: 0.2, 4: 0.7}),
        ({"count": 2, "renormalise": False, "groups": 3}, {3: 0.6, 2: 0.5}),  # sums of two: 1.0, 1.1 and 0.9
        ({"count": 2, "renormalise": False, "groups": 2}, {1: 0.9, 2: 0.5}),  # of the best two: 1.4 and 1.3
        ({"count": 3, "renormalise": False, "groups": 3, "kept_groups": 2}, {1: 0.9, 3: 0.6, 2: 0.5}),
        ({"count": 2, "renormalise": False, "groups": 3, "bias": -5.0}, {3: 0.6, 2: 0.5}),
    ],
)
def test_choices_by_hand(options, expected):
    assert choose(SCORES, **options) == pytest.approx(expected)


def test_of_equal_numbers_the_first():
    assert largest(np.array([1.0, 3.0, 3.0, 1.0, 3.0]), 4).tolist() == [1, 2, 4, 0]


def test_scores_of_zero_have_weights_of_zero():
    assert choose(np.zeros(6), count=3) == {0: 0.0, 1: 0.0, 2: 0.0}


def test_an_expert_runs_once_on_its_own_tokens():
    x, calls = rng.standard_normal((2, 3, 4)), {}

    def expert(number):
        def run(rows):
            assert number not in calls
            calls[number] = rows
            return rows * number

        return run

    chosen = np.array([[[0, 3], [3, 1], [3, 0]], [[1, 3], [1, 0], [3, 1]]])
    weights = rng.standard_normal(chosen.shape)
    y = mixture(x, chosen, weights, [expert(i) for i in range(5)])
    np.testing.assert_allclose(y, np.sum(weights * chosen, axis=-1, keepdims=True) * x)
    assert sorted(calls) == [0, 1, 3]
    tokens = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 2)]
    np.testing.assert_array_equal(calls[3], [x[i] for i in tokens])


@pytest.mark.parametrize("shape", [(0, 4), (2, 0, 4), (0, 5, 4)])
def test_no_tokens(shape):
    chosen = np.zeros((*shape[:-1], 2), dtype=int)
    assert mixture(np.zeros(shape), chosen, np.zeros(chosen.shape), [lambda x: x] * 3).shape == shape


@pytest.mark.parametrize("routing", [Routing(6, 2, factor=2.5), Routing(6, 3, 3, 2, renormalise=False)])
def test_gradients(routing):
    model = MixtureOfExperts(ExpertsConfig(4, 3, 5, routing), np.random.default_rng(1), np.float64)
    model.gate.weight = 3 * model.gate.weight
    x = rng.standard_normal((7, 4))
    names, arrays = zip(*model.named_parameters().items(), strict=True)

    def run(x, *arrays):
        copied = MixtureOfExperts(ExpertsConfig(4, 3, 5, routing), np.random.default_rng(1), np.float64)
        for name, array in zip(names, arrays, strict=True):
            holder, *path = copied, *name.split(".")
            for part in path[:-1]:
                holder = holder[int(part)] if isinstance(holder, list) else getattr(holder, part)
            setattr(holder, path[-1], array)
        return copied(x)

    mg.check_grads(run, [x, *arrays])
    gradient = mg.grad(lambda model: mg.sum(model(x[:1]) ** 2))(model)
    used = [i for i in range(6) if np.any(gradient.experts[i].gate_up_proj.weight)]
    assert len(used) == routing.count
    assert not np.any(gradient.gate.e_score_correction_bias)


# Copies with one thing wrong

BROKEN = [
    # text, what stands there instead, what is wrong
    ("choice = scores + bias", "choice = scores", "no bias"),
    ("mg.take_along_axis(scores, chosen", "mg.take_along_axis(scores + bias, chosen", "the bias in the weights"),
    ("descending=True)", "descending=False)", "the smallest"),
    ("largest(grouped, 2)", "largest(grouped, 1)", "groups by their best expert"),
    ("grouped, -math.inf)", "grouped, 0.0)", "experts of other groups at 0, above negative ones"),
    ("if routing.renormalise:", "if not routing.renormalise:", "divided by the sum where it is not asked for"),
    ("+ TINY)", "+ 1e-3)", "a large epsilon"),
    ("return chosen, weights * routing.factor", "return chosen, weights", "no factor"),
    ("order // count", "order % len(x)", "tokens of other pairs"),
    ("np.argsort(order)", "order", "outputs not put back"),
    ("[0, *ends[:-1]]", "[0, *ends[1:]]", "an expert given what is another's"),
    ("weights[..., None] * xp", "xp", "no weights"),
]


def failure(module, monkeypatch):
    """Return the first statement of the chapter that fails on the copy, each in one number system."""
    monkeypatch.setattr("proofs.identities.experts.experts", module)
    return first_failure("experts")


@pytest.mark.parametrize(("text", "instead", "wrong"), BROKEN, ids=lambda x: x)
def test_a_broken_copy_is_caught(text, instead, wrong, monkeypatch):
    assert failure(copy_of("blocks.experts", text, instead), monkeypatch), wrong


def test_a_faithful_copy_passes(monkeypatch):
    assert failure(copy_of("blocks.experts"), monkeypatch) is None
