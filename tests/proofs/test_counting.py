"""The longest path of a graph, in operations on whole arrays."""

import numpy as np

import minigrad as mg
from proofs.checker.counting import sequential_steps


def tensor(*shape):
    return mg.Tensor(np.ones(shape))


def test_an_input_takes_no_step():
    assert sequential_steps(tensor(2)) == 0


def test_operations_that_wait_for_one_another_are_counted():
    x = tensor(2, 2)
    assert sequential_steps(mg.exp(x @ x + 1)) == 3


def test_the_longer_of_two_branches_counts():
    x = tensor(2)
    assert sequential_steps(mg.exp(mg.exp(mg.exp(x))) * mg.exp(x)) == 4


def test_a_value_used_twice_is_computed_once():
    x = tensor(2)
    for _ in range(100):  # with 2¹⁰⁰ paths
        x = x + x
    assert sequential_steps(x) == 100


def test_a_scan_takes_as_many_steps_as_its_axis_is_long():
    a, x = tensor(5, 3), tensor(5, 3)
    assert sequential_steps(mg.scan(a, x, axis=0)) == 5
    assert sequential_steps(mg.scan(a, x, axis=-1)) == 3
