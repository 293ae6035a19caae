"""Tiny cases worked out on paper, so that the equations do not rest on the forms' agreement alone."""

import math

import numpy as np
import pytest

from models import sequences
from models.attention import feature_maps, softmax
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, linear_attention

HALF = math.log(0.5)
GONE = -math.inf


def column(*numbers):
    return np.array(numbers, dtype=float)[:, None]


def forms_of(mechanism):
    return [getattr(mechanism, name) for name in ("recurrent", "parallel", "chunkwise") if hasattr(mechanism, name)]


def check(mechanism, arguments, outputs, memory, **options):
    for form in forms_of(mechanism):
        y, state = form(*arguments, **options)
        np.testing.assert_allclose(y, outputs, rtol=1e-14, atol=1e-14, err_msg=form.__name__)
        np.testing.assert_allclose(state, memory, rtol=1e-14, atol=1e-14, err_msg=form.__name__)


def test_linear_attention_adds_up_what_it_writes():
    # S: 3·1 = 3, then 3 + 1·2 = 5
    check(linear_attention, (column(1, 2), column(3, 1), column(1, 2)), column(3, 10), [[5]])
    check(linear_attention, (column(1, 2), column(3, 1), column(1, 2)), column(4, 12), [[6]], state=np.ones((1, 1)))


def test_the_memory_lies_keys_by_values():
    q, k, v = np.array([[1.0, 10.0]]), np.array([[2.0, 3.0]]), np.array([[1.0, 0.0, -1.0]])
    check(linear_attention, (q, k, v), [[32, 0, -32]], [[2, 0, -2], [3, 0, -3]])


def test_gated_linear_attention_fades_before_it_writes():
    # S: 3, then ½·3 + 2 = 3.5
    gate = np.array([HALF, HALF])
    check(gated_linear_attention, (column(1, 2), column(3, 1), column(1, 2), gate), column(3, 7), [[3.5]])
    # from S = 4: ½·4 + 3 = 5, then ½·5 + 2 = 4.5
    arguments = column(1, 2), column(3, 1), column(1, 2), gate
    check(gated_linear_attention, arguments, column(5, 9), [[4.5]], state=np.full((1, 1), 4.0))


def test_a_gate_per_channel_fades_rows_of_the_memory():
    q, k, v = np.ones((2, 2)), np.array([[1.0, 2.0], [0.0, 1.0]]), column(4, 1)
    gate = np.array([[0.0, 0.0], [HALF, GONE]])
    # S: (4, 8), then (½·4, 0·8 + 1)
    check(gated_linear_attention, (q, k, v, gate), column(12, 3), [[2], [1]])


def test_the_delta_rule_writes_what_is_missing():
    # u = ½(4 − 0) = 2, S = 2; u = ½(8 − 2) = 3, S = 5
    beta = np.array([0.5, 0.5])
    check(delta_rule, (column(1, 1), column(1, 1), column(4, 8), beta), column(2, 5), [[5]])


def test_the_delta_rule_replaces_the_value_of_a_key():
    e1, e2 = [1.0, 0.0], [0.0, 1.0]
    k, q = np.array([e1, e1, e2]), np.array([e1, e1, e1])
    check(delta_rule, (q, k, column(1, 5, 7), np.ones(3)), column(1, 5, 5), [[5], [7]])


def test_the_gated_delta_rule_corrects_the_faded_memory():
    # S = 2; faded 1, u = ½(8 − 1) = 3.5, S = 4.5
    beta, gate = np.array([0.5, 0.5]), np.array([HALF, HALF])
    check(gated_delta_rule, (column(1, 1), column(1, 1), column(4, 8), beta, gate), column(2, 4.5), [[4.5]])
    emptied = np.array([0.0, GONE])
    check(gated_delta_rule, (column(1, 1), column(1, 1), column(4, 8), beta, emptied), column(2, 4), [[4]])


def test_each_key_channel_fades_by_its_own_gate():
    # S = (2, 2); faded (1, 0), u = ½(8 − 1) = 3.5, S = (4.5, 3.5)
    k, gates = np.ones((2, 2)), np.array([[HALF, GONE], [HALF, GONE]])
    check(gated_delta_rule, (k, k, column(4, 8), np.array([0.5, 0.5]), gates), column(4, 8), [[4.5], [3.5]])


def test_softmax_weighs_by_the_exponential_of_the_score():
    # scores 0 and log 3: weights ¼ and ¾
    q, k, v = column(1, 1), column(0, math.log(3)), column(4, 8)
    np.testing.assert_allclose(softmax.quadratic(q, k, v)[0], column(4, 7))
    np.testing.assert_allclose(softmax.quadratic(q, k, v, causal=False)[0], column(7, 7))
    np.testing.assert_allclose(softmax.quadratic(q, k, v, scale=0)[0], column(4, 6))
    q, k, v = np.ones((1, 4)), np.zeros((2, 4)), column(4, 8)
    k[1, 0] = 2 * math.log(3)  # over √4
    np.testing.assert_allclose(softmax.quadratic(q, k[1:], v[1:], state=(k[:1], v[:1]))[0], column(7))


def test_softmax_continues_from_its_state():
    q, k, v = column(1, 1), column(0, math.log(3)), column(4, 8)
    _, state = softmax.quadratic(q[:1], k[:1], v[:1])
    y, (keys, values) = softmax.quadratic(q[1:], k[1:], v[1:], state=state)
    np.testing.assert_allclose(y, column(7))
    np.testing.assert_array_equal(keys, k)
    np.testing.assert_array_equal(values, v)


def test_softmax_stays_finite_where_exponentials_would_not():
    q, k, v = column(1, 1), column(1e5, 2e5), column(4, 8)
    np.testing.assert_allclose(softmax.quadratic(q, k, v)[0], column(4, 8))


def test_a_query_that_may_look_nowhere_reads_zero():
    q, k, v = column(1, 1), column(0, math.log(3)), column(4, 8)
    mask = np.array([[False, True], [True, False]])  # the first may look ahead only, which `causal` forbids
    np.testing.assert_allclose(softmax.quadratic(q, k, v, mask=mask)[0], column(0, 4))
    np.testing.assert_allclose(softmax.quadratic(q, k, v, mask=mask, causal=False)[0], column(8, 4))


@pytest.mark.parametrize("form", [softmax.quadratic, softmax.lazy, softmax.fused])
def test_a_bias_is_added_to_the_scaled_scores(form):
    q, k, v = column(2, 1), column(0, math.log(3)), column(4, 8)
    bias = np.array([[7, 7], [math.log(6), 0]])  # weights e⁰ · 6 and e^(log 3): 2 to 1
    np.testing.assert_allclose(form(q, k, v, bias=bias)[0], column(4, (2 * 4 + 8) / 3))
    np.testing.assert_allclose(form(q, k, v, bias=bias[1], mask=np.array([True, False]))[0], column(4, 4))


def test_elu_plus_one():
    np.testing.assert_allclose(feature_maps.elu_plus_one(column(2, 0, -math.log(4))), column(3, 1, 0.25))


def test_taylor_features_multiply_to_the_series():
    q, k = np.array([[1.0, 2.0]]), np.array([[3.0, -1.0]])  # q·k = 1
    for order, series in enumerate([1, 2, 2.5, 2.5 + 1 / 6]):
        product = feature_maps.taylor(q, order=order) @ feature_maps.taylor(k, order=order).mT
        np.testing.assert_allclose(product, [[series]])


def test_positive_random_features_of_one_direction():
    # exp(ω·x − ½‖x‖²) with ω·x = 5 and ‖x‖² = 2; two directions share a factor 1/√2
    features = feature_maps.positive_random(np.array([[1.0, 1.0]]), np.array([[2.0, 3.0], [1.0, 0.0]]))
    np.testing.assert_allclose(features, [[math.exp(4) / math.sqrt(2), 1 / math.sqrt(2)]])


@pytest.mark.parametrize("form", forms_of(linear_attention))
def test_normalised_weights_sum_to_one(form):
    phi_q, phi_k, v = column(1, 2), column(3, 1), column(4, 8)
    y, state = feature_maps.normalised(form, phi_q, phi_k, v)
    np.testing.assert_allclose(y, column(4, (3 * 4 + 1 * 8) / 4))
    np.testing.assert_allclose(state, [[20, 4]])


def test_segment_sums_survive_a_gate_of_zero():
    sums = sequences.segment_sums(column(-1, GONE, -2, -4))
    expected = [[0, 0, 0, 0], [GONE, 0, 0, 0], [GONE, -2, 0, 0], [GONE, -6, -4, 0]]
    np.testing.assert_array_equal(sums[..., 0], expected)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
def test_the_inverse_of_ones_below_the_diagonal_is_a_difference(size):
    A = np.ones((size, size))
    np.testing.assert_array_equal(sequences.unit_lower_inverse(A), np.eye(size) - np.eye(size, k=-1))
