"""Every mistake in calling a form is one line that names the argument, what came and what was expected."""

import inspect
from fractions import Fraction

import numpy as np
import pytest

from models.attention import softmax
from models.forms import form, mechanisms
from models.memory import delta_rule, gated_delta_rule, gated_linear_attention, linear_attention, titans
from models.ssm import ssd

q = k = np.ones((2, 6, 4))
v = np.ones((2, 6, 3))
beta = log_decay = np.zeros((2, 6))
S = np.zeros((2, 4, 3))
keys, values = np.zeros((2, 5, 4)), np.zeros((2, 5, 3))


def exact(*shape):
    return np.full(shape, Fraction(1, 3))


SIZES = [
    (
        lambda: delta_rule.chunkwise(q, k[:, :5], v, beta),
        "delta_rule.chunkwise: k has 5 on axis T, expected 6 as in q (shape (2, 5, 4), expected *batch T K)",
    ),
    (
        lambda: linear_attention.recurrent(q, k[..., :3], v),
        "linear_attention.recurrent: k has 3 on axis K, expected 4 as in q (shape (2, 6, 3), expected *batch T K)",
    ),
    (
        lambda: linear_attention.parallel(q, k, v[0]),
        "linear_attention.parallel: v has () on axis *batch, expected (2,) as in q (shape (6, 3), expected *batch T V)",
    ),
    (
        lambda: delta_rule.recurrent(q, k, v, beta[:, :1]),
        "delta_rule.recurrent: beta has 1 on axis T, expected 6 as in q (shape (2, 1), expected *batch T)",
    ),
    (
        lambda: linear_attention.chunkwise(q, k, v, state=S.mT),
        "linear_attention.chunkwise: state has 3 on axis K, expected 4 as in q (shape (2, 3, 4), expected *batch K V)",
    ),
    (
        lambda: linear_attention.recurrent(q[..., :0], k[..., :0], v),
        "linear_attention.recurrent: q has 0 on axis K, expected at least 1 (shape (2, 6, 0), expected *batch T K)",
    ),
    (
        lambda: softmax.quadratic(q[0, 0], k, v),
        "softmax.quadratic: q has rank 1, expected at least 2 (shape (4,), expected *batch T K)",
    ),
    (
        lambda: gated_linear_attention.recurrent(q, k, v, np.zeros((2, 6, 3))),
        "gated_linear_attention.recurrent: log_decay has 3 on axis K, expected 4 as in q "
        "(shape (2, 6, 3), expected *batch T or *batch T K)",
    ),
    (
        lambda: gated_linear_attention.parallel(q, k, v, np.zeros((3, 6))),
        "gated_linear_attention.parallel: log_decay has (3,) on axis *batch, expected (2,) as in q "
        "(shape (3, 6), expected *batch T or *batch T K)",
    ),
    (
        lambda: softmax.quadratic(q, k, v, state=(keys, values[:, :4])),
        "softmax.quadratic: state[1] has 4 on axis S, expected 5 as in state[0] (shape (2, 4, 3), expected *batch S V)",
    ),
    (
        lambda: softmax.quadratic(q, k, v, mask=np.ones((2, 6), dtype=bool)),
        "softmax.quadratic: mask has shape (2, 6), expected one that broadcasts to (2, 6, 6)",
    ),
    (
        lambda: softmax.quadratic(q, k, v, mask=np.ones((5, 2, 6, 6), dtype=bool)),
        "softmax.quadratic: mask has shape (5, 2, 6, 6), expected one that broadcasts to (2, 6, 6)",
    ),
    (
        lambda: softmax.fused(q, k, v, bias=np.ones((3, 6, 6))),
        "softmax.fused: bias has shape (3, 6, 6), expected one that broadcasts to (2, 6, 6)",
    ),
    (
        lambda: softmax.quadratic(q, k, v, state=(keys, values), bias=np.ones((6, 6))),
        "softmax.quadratic: bias has shape (6, 6), expected one that broadcasts to (2, 6, 11)",
    ),
    (
        lambda: gated_delta_rule.chunkwise(q, k, v, beta, log_decay, chunk_size=0),
        "gated_delta_rule.chunkwise: chunk_size is 0, expected an integer of at least 1",
    ),
]

T_BEFORE_H = "(…, T, H, {0}), expected (…, H, T, {0})"
heads = np.ones((2, 6, 3, 4))
SUSPICIONS = [
    (
        lambda: linear_attention.recurrent(heads, heads, heads, state=np.zeros((2, 3, 4, 4))),
        "state has (2, 3) on axis *batch, expected (2, 6) as in q (shape (2, 3, 4, 4), expected *batch K V): "
        f"q seems to have time before heads, {T_BEFORE_H.format('features')}",
    ),
    (
        lambda: linear_attention.recurrent(heads, heads, heads, state=np.zeros((2, 4, 4, 4))),
        "state has (2, 4) on axis *batch, expected (2, 6) as in q (shape (2, 4, 4, 4), expected *batch K V)",
    ),
    (
        lambda: ssd.recurrent(heads, heads[..., 0], -np.ones(3), heads, heads),
        "A has shape (3,), expected () or the last of the batch axes (2, 6): "
        f"x seems to have time before heads, {T_BEFORE_H.format('P')}",
    ),
    (
        lambda: titans.chunkwise(q, k, v, beta, beta + 0.5, log_decay, ((np.ones((4, 3)),),)),
        "log_eta is 0.5 at token 0, expected at most 0 (η at most 1): all are in (0, 1], they seem to be the factors, "
        "expected their logarithms",
    ),
    (
        lambda: titans.chunkwise(q, k, v, beta, log_decay, beta + 1.5, ((np.ones((4, 3)),),)),
        "log_decay is 1.5 at token 0, expected at most 0 (α at least 0)",
    ),
]


@pytest.mark.parametrize(("call", "message"), SUSPICIONS, ids=range(len(SUSPICIONS)))
def test_what_the_values_show_is_suspected(call, message):
    with pytest.raises(ValueError, match=": ") as error:
        call()
    assert str(error.value).partition(": ")[2] == message


KINDS = [
    (
        lambda: linear_attention.recurrent(q.astype(int), k, v),
        "linear_attention.recurrent: q has dtype int64, expected real floating point",
    ),
    (
        lambda: delta_rule.chunkwise(q, k * 1j, v, beta),
        "delta_rule.chunkwise: k has dtype complex128, expected real floating point",
    ),
    (
        lambda: linear_attention.parallel(q, k, v.tolist()),
        "linear_attention.parallel: v is a list (numpy.asarray makes an array of it), "
        "expected an array of shape *batch T V",
    ),
    (
        lambda: linear_attention.parallel(q, k, "values"),
        "linear_attention.parallel: v is of type str, expected an array of shape *batch T V",
    ),
    (
        lambda: linear_attention.fused(linear_attention.fused(q, k, v), k, v),
        "linear_attention.fused: q is a tuple of 2 (a form returns (y, state): pass its first member), "
        "expected an array of shape *batch T K",
    ),
    (
        lambda: linear_attention.chunkwise(q, k, v, state=linear_attention.fused(q, k, v)),
        "linear_attention.chunkwise: state is a tuple of 2 (a form returns (y, state): pass its second member), "
        "expected an array of shape *batch K V",
    ),
    (
        lambda: linear_attention.parallel(q, None, v),
        "linear_attention.parallel: k is of type NoneType, expected an array of shape *batch T K",
    ),
    (
        lambda: linear_attention.parallel(q, k, v, state=0),
        "linear_attention.parallel: state is of type int, expected an array of shape *batch K V",
    ),
    (
        lambda: softmax.quadratic(q, k, v, mask=np.ones((6, 6))),
        "softmax.quadratic: mask has dtype float64, expected bool",
    ),
    (
        lambda: softmax.quadratic(q, k, v, bias=np.ones((6, 6), dtype=bool)),
        "softmax.quadratic: bias has dtype bool, expected real floating point",
    ),
    (
        lambda: softmax.quadratic(q, k, v, state=keys),
        "softmax.quadratic: state is of type ndarray, expected a tuple of 2 arrays",
    ),
    (
        lambda: softmax.quadratic(q, k, v, state=(keys, values, values)),
        "softmax.quadratic: state has 3 items, expected a tuple of 2 arrays",
    ),
    (
        lambda: linear_attention.chunkwise(q, k, v, chunk_size=2.5),
        "linear_attention.chunkwise: chunk_size is 2.5, expected an integer of at least 1",
    ),
]


@pytest.mark.parametrize(("call", "message"), SIZES)
def test_a_wrong_size_is_a_value_error(call, message):
    with pytest.raises(ValueError) as excinfo:
        call()
    assert str(excinfo.value) == message


@pytest.mark.parametrize(("call", "message"), KINDS)
def test_a_wrong_kind_of_argument_is_a_type_error(call, message):
    with pytest.raises(TypeError) as excinfo:
        call()
    assert str(excinfo.value) == message


NAMES = [
    (lambda: delta_rule.recurrent(q, k, v), "delta_rule.recurrent: missing argument beta"),
    (lambda: gated_delta_rule.fused(q, k, v), "gated_delta_rule.fused: missing arguments beta, log_decay"),
    (
        lambda: linear_attention.parallel(q, k, v, chunk_size=2),
        "linear_attention.parallel: unexpected argument chunk_size, expected q, k, v, state",
    ),
    (
        lambda: linear_attention.parallel(q, k, v, S),
        "linear_attention.parallel: 4 arguments were given by position, expected at most 3 (q, k, v)",
    ),
    (
        lambda: linear_attention.parallel(q, k, v, v=v),
        "linear_attention.parallel: argument v was given by position and by name, expected one of them",
    ),
]


@pytest.mark.parametrize(("call", "message"), NAMES)
def test_arguments_that_are_missing_unknown_or_too_many_are_a_type_error(call, message):
    with pytest.raises(TypeError) as excinfo:
        call()
    assert str(excinfo.value) == message


@pytest.mark.parametrize("mechanism", mechanisms())
def test_every_form_names_itself_and_what_is_missing(mechanism):
    for label, function in mechanisms()[mechanism].items():
        parameters = inspect.signature(function).parameters.values()
        required = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        expected = f"{mechanism.rpartition('.')[2]}.{label}: missing arguments {', '.join(required)}"
        with pytest.raises(TypeError) as excinfo:
            function()
        assert str(excinfo.value) == expected


def test_keywords_are_checked_like_positions():
    with pytest.raises(ValueError, match=r"k has 5 on axis T, expected 6 as in q "):
        linear_attention.parallel(v=v, k=k[:, :5], q=q)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble", "object"])
def test_every_kind_of_reals_passes_and_stays_what_it_is(dtype):
    arrays = (
        [exact(2, 3), exact(2, 3), exact(2, 1)] if dtype == "object" else [np.ones((2, n), dtype) for n in (3, 3, 1)]
    )
    y, state = linear_attention.recurrent(*arrays)
    assert y.dtype == state.dtype == np.dtype(dtype)


def test_a_form_outside_the_families_is_checked_but_not_listed():
    @form
    def copy(q: linear_attention.TK, k: linear_attention.TK):
        return q, k

    with pytest.raises(ValueError, match=r"copy: k has 2 on axis T, expected 6 as in q"):
        copy(q, k[:, :2])
    assert all("copy" not in forms for forms in mechanisms().values())


def test_mechanisms_have_their_forms_plainest_first():
    result = {name: list(forms) for name, forms in mechanisms().items()}
    assert result["attention.softmax"][0] == "quadratic"
    assert result["memory.linear_attention"] == ["recurrent", "parallel", "chunkwise", "fused"]
    assert result["memory.delta_rule"][:2] == ["recurrent", "chunkwise"]
    assert result["ssm.selective_scan"] == ["recurrent", "associative", "chunkwise", "fused"]
    assert result["ssm.s4"] == ["recurrent", "convolution", "fused"]
