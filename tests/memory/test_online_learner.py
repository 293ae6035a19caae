"""The map of the one learner: every row is made of choices there are, and another choice is another mechanism."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from models.memory.online_learner import LOSSES, NO_POINTS, OPTIMISERS, POINTS, huber, run
from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.checker.systems import SYSTEMS
from tests.copies import copy_of

CHAPTERS = ("online_learner", "online_learner_map")


def stated_as(name):
    """Return the statement of one of the two chapters."""
    (found,) = (STATEMENTS[f"{c}.{name}"] for c in CHAPTERS if f"{c}.{name}" in STATEMENTS)
    return found


def test_every_point_is_made_of_choices_that_there_are():
    for name, point in POINTS.items():
        assert point.loss in LOSSES and point.optimiser in OPTIMISERS, name


def test_every_point_is_shown_by_an_identity_and_what_is_none_is_refuted():
    shown = {s.function.__code__ for s in STATEMENTS.values() if s.chapter in CHAPTERS and s.kind == "identity"}
    assert set(POINTS) <= {constant for code in shown for constant in code.co_consts if isinstance(constant, str)}
    for name, other in NO_POINTS.items():
        assert STATEMENTS[other.statement].kind == "refuted" and name not in POINTS


@pytest.mark.parametrize(
    ("name", "choice", "statement"),
    [
        ("linear attention", {"loss": "½ L2"}, "is_linear_attention"),
        ("GLA", {"optimiser": "descent"}, "is_gla"),
        ("delta rule", {"optimiser": "descent, implicit"}, "is_delta_rule"),
        ("gated delta rule", {"optimiser": "descent + decay"}, "is_gated_delta_rule"),
        ("RWKV-7", {"optimiser": "decay, then descent"}, "is_rwkv7"),
        ("Titans", {"optimiser": "descent + decay"}, "is_titans"),
        ("Titans", {"loss": "dot product"}, "is_titans_mlp"),
        ("RetNet", {"optimiser": "descent"}, "is_retnet"),
        ("Longhorn", {"optimiser": "descent"}, "is_longhorn"),
        ("TTT-MLP", {"loss": "dot product"}, "is_ttt_mlp"),
        ("TTT-Linear", {"loss": "dot product"}, "is_ttt_linear_with_norm"),
        ("Moneta (MIRAS)", {"loss": "½ L2"}, "is_moneta"),
        ("Moneta (MIRAS)", {"optimiser": "descent + decay"}, "is_moneta"),
        ("Yaad (MIRAS)", {"loss": "½ L2"}, "is_yaad"),
        ("Memora (MIRAS)", {"optimiser": "descent + decay"}, "is_memora"),
        ("Mamba (S6)", {"optimiser": "descent"}, "is_mamba"),
        ("S4D", {"optimiser": "descent"}, "is_s4d"),
        ("S4", {"optimiser": "descent"}, "is_s4"),
        ("LSSL", {"loss": "½ L2"}, "is_lssl"),
        ("LTI", {"loss": "½ L2"}, "is_lti"),
        ("RWKV-4", {"loss": "dot product"}, "is_rwkv4"),
        ("softmax attention", {"loss": "dot product"}, "is_softmax_attention"),
    ],
)
def test_another_choice_is_another_mechanism(name, choice, statement, monkeypatch):
    stated = stated_as(statement)
    monkeypatch.setitem(POINTS, name, dataclasses.replace(POINTS[name], **choice))
    assert check_system(stated, systems_of(stated)[0]).status == "failed"


@pytest.mark.parametrize(
    ("text", "instead", "statement"),
    [
        ("map_layers(link, at)", "at", "is_moneta"),  # the gradient at what is kept, not at what is read
        ("apply_model(map_layers(link, M), norm, q_t)", "apply_model(M, norm, q_t)", "is_memora"),
        (
            "apply_model(map_layers(link, M), norm, q_t)",
            "apply_model(map_layers(link, M), None, q_t)",
            "is_ttt_linear_with_norm",
        ),
        ("mg.abs(answer - v) ** 3", "mg.abs(answer - v) ** 2", "is_moneta"),
        ("M**4", "M**2", "is_moneta"),
        ("mg.softmax(M, axis=-2)", "mg.softmax(M, axis=-1)", "is_memora"),
        ("keepdims=True) <= 1", "keepdims=True) <= 4", "is_yaad"),
        ("namespace(error).sum(error * error, axis=-1, keepdims=True)", "error * error", "is_yaad"),  # by feature
        ("start = M if t % batch == 0", "start = M if t == 0", "is_ttt_linear"),
        ('gates["keep"] * M, M), S, gradient', "M, M), S, gradient", "is_gla"),
        ('gates["keep"] * M + S', "M + S", "dot_product_forgets_everything"),
        ("-mg.sum(mg.real(answer) * v)", "mg.sum((answer - v) ** 2) / 2", "dot_product_forgets_everything"),
        ('gates["transition"] @ M', 'gates["transition"].mT @ M', "is_lti"),
        ('gates["transition"] @ M', "M", "is_lssl"),
        (
            "row[(..., *[None] * (2 - axes))]",
            "row[(..., *[None] * (2 - axes))].mT if axes == 2 else row[(..., *[None] * (2 - axes))]",
            "is_s4",
        ),
        ('gates["keep"] * M, M), S, gradient', 'mg.real(gates["keep"]) * M, M), S, gradient', "is_s4d"),
        ('gates["keep"] * M, M), S, gradient', 'gates["keep"] ** 2 * M, M), S, gradient', "is_mamba"),
        ("start = M if t % batch == 0", "start = M if t >= 0", "is_softmax_attention"),
        ('M - gates["rate"] * g', "M - g", "is_rwkv4"),
        ('gates["keep"] * M, M), S, gradient', "M, M), S, gradient", "cell_without_recurrent_weights"),
    ],
)
def test_a_broken_copy_is_caught(text, instead, statement, monkeypatch):
    copy = copy_of("memory.online_learner", text, instead)
    monkeypatch.setattr("proofs.identities.online_learner.run", copy.run)
    stated = stated_as(statement)
    systems = [name for name in systems_of(stated) if not SYSTEMS[name].library]
    assert "failed" in (check_system(stated, name).status for name in systems)


def test_an_outlier_teaches_no_more_than_an_error_of_one():
    # M = 0: the errors are −v, and the first of them is longer than 1
    one, nothing = np.ones((1, 1)), np.zeros((1, 2))
    for v, learnt, loss in [((3, 0.5), (1, 1), 3.5), ((0.5, -0.5), (0.5, -0.5), 0.25)]:
        y, _ = run(one, one, np.array([v]), {"rate": np.ones(1)}, ((nothing,),), loss="Huber", optimiser="descent")
        np.testing.assert_allclose(y, [learnt])
        np.testing.assert_allclose(huber(nothing, np.array([v])), loss)


def test_a_missing_gate_is_named():
    one = np.ones((1, 1))
    with pytest.raises(KeyError, match="keep"):
        run(one, one, one, {"rate": np.ones(1)}, ((one,),), loss="½ L2", optimiser="descent + decay")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"batch": 0}, "online_learner.run: batch is 0, expected an integer of at least 1"),
        ({"loss": "L3"}, "online_learner.run: loss: expected one of dot product, ½ L2, Huber, ℓ₃, got 'L3' (nearest: "),
        ({"optimiser": "descend"}, "online_learner.run: optimiser: expected one of descent, "),
        ({"memory": ((np.ones((2, 1)),),)}, "online_learner: memory[0][0] has 2 rows, expected 1, as many as k has"),
        ({"v": np.ones((2, 1))}, "online_learner.run: v has shape (2, 1), expected one that begins with (1,)"),
        ({"gates": {"rate": np.ones(3)}}, "online_learner.run: rate has shape (3,), expected one that begins with"),
    ],
)
def test_a_mistake_is_one_line(choice, message):
    one = np.ones((1, 1))
    arguments = {"v": one, "gates": {"rate": np.ones(1)}, "memory": ((one,),), "loss": "½ L2", "optimiser": "descent"}
    with pytest.raises(ValueError) as excinfo:
        run(one, one, **(arguments | choice))
    assert str(excinfo.value).startswith(message) and "\n" not in str(excinfo.value)


def test_the_map_is_printed():
    wide = {**os.environ, "COLUMNS": "160"}
    command = [sys.executable, "-m", "models", "map"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout
    assert (
        "delta rule" in printed
        and "gates_that_read_the_state" in printed
        and "Longhorn" in printed
        and len(printed.splitlines()) >= len(POINTS)
    )
