"""Counts of operations: those in the headers of the sources, and of the order of the plainest forms."""

import re

import numpy as np
import pytest

from gpu import flops
from models.attention import softmax
from models.memory import delta_rule, gated_linear_attention, linear_attention
from proofs.checker.counting import counted
from tests.gpu.kit import header_of

COUNTED = {
    "gated_delta_rule": (flops.delta_rule, 0),
    "gated_linear_attention": (flops.gated_linear_attention, 0),
    "linear_attention": (flops.linear_attention, 0),
    "linear_attention_tensor_cores": (flops.linear_attention_tensor_cores, 0),
    "titans": (flops.titans, 0),
}


@pytest.mark.parametrize("source", COUNTED)
def test_operations_are_those_that_the_header_counts(source):
    """Read the count for a token at K = V = 128 in the header's last lines."""
    stated = int(re.search(r"at K = V = 128, ([\d,]+) operations", header_of(source))[1].replace(",", ""))
    q = np.empty((1, 1, 128), np.float32)
    assert COUNTED[source][0](q, q, q)[0] == pytest.approx(stated, rel=0.02)


def test_exponentials_of_the_selective_scan_are_those_that_its_header_counts():
    pattern = r"forward an exponential and (\d+) operations, backward two exponentials and (\d+)"
    forward, backward = map(int, re.search(pattern, header_of("selective_scan")).groups())
    u, A = np.empty((1, 10, 3)), np.empty((3, 4))
    assert flops.selective_scan(u, u, A) == (120 * max(16, forward), 120 * max(2 * 16, backward))


@pytest.mark.parametrize(
    ("count", "form", "gates"),
    [
        (flops.linear_attention, linear_attention.recurrent, ()),
        (flops.linear_attention_tensor_cores, linear_attention.recurrent, ()),
        (flops.gated_linear_attention, gated_linear_attention.recurrent, (-1,)),
        (flops.delta_rule, delta_rule.recurrent, (1,)),
        (flops.softmax, softmax.quadratic, ()),
    ],
    ids=lambda x: getattr(x, "__qualname__", ""),
)
def test_operations_are_as_many_as_the_plainest_form_does(count, form, gates):
    """Allow half as many, where that form computes masked scores, and more, as chunks do more than single tokens."""
    q = np.random.default_rng(0).standard_normal((64, 32))
    tally = [0]
    form(*(counted(x, tally) for x in (q, q, q, *(gate * np.ones(64) for gate in gates))))
    assert 0.4 * tally[0] < count(q, q, q)[0] < 6 * tally[0]
