"""Golden vectors: the bytes of the files, what other forms and exact numbers give for the inputs, and the command."""

import functools
import hashlib
import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import minigrad as mg
from minigrad.engine import unwrap
from models.errors import UserError
from models.forms import mechanisms
from proofs.__main__ import app
from proofs.checker.forms import forms
from proofs.port.conventions import conventions
from proofs.port.forms import full_name
from proofs.port.reference import leaves, rebuild, result_names
from proofs.vectors import command, evaluate, formats, inputs
from proofs.vectors.command import write

SUBJECTS = evaluate.subjects()
DIGESTS = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
UPDATE = (
    f"a file differs from version {inputs.VERSION} of the vectors: undo the change, or count VERSION up and record it"
)


@functools.cache
def vector(name, case):
    return evaluate.evaluate(SUBJECTS[name], inputs.CASES[case])


def cases(name, *wanted):
    return [case.name for case in inputs.cases(SUBJECTS[name].form) if case.name in wanted]


def test_every_mechanism_has_vectors_and_conventions():
    assert {subject.mechanism for subject in SUBJECTS.values()} == set(mechanisms()) == set(conventions())
    assert {(x.mechanism, form) for x in SUBJECTS.values() for form in x.forms} == {
        (name, form) for name, functions in mechanisms().items() for form in functions
    }


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_bytes_are_those_recorded(name):
    """The recorded digests are of another machine, perhaps: nothing of this one takes part in the numbers."""
    found = hashlib.sha256(formats.safetensors(vector(name, "start_state").arrays, {"name": name})).hexdigest()
    assert (inputs.VERSION, found) == (DIGESTS["version"], DIGESTS["start_state"].get(name)), UPDATE


def results(form, vector, dtype, change):
    """Return the results and gradients of one of our forms in floating point, by the names of the vectors.

    `change` is made to the arguments first.
    """
    names, state = list(vector.inputs.arrays), vector.inputs.state
    given = [*vector.inputs.arrays.values(), *leaves(state)]
    arrays = [x.astype({"f": dtype, "c": np.result_type(dtype, np.complex64)}[x.dtype.kind]) for x in given]

    def call(*args):
        after = None if state is None else rebuild(state, args[len(names) :])
        y, after = form(change(dict(zip(names, args, strict=False))), after, vector.inputs.chunk)
        return [y, *leaves(after)]

    found, pull = mg.vjp(call, *arrays)
    labels = ["y", *(f"final_{x}".replace("[", ".").replace("]", "") for x in result_names(form)[1:])]
    cotangents = [vector.arrays[f"cotangent/{x}"].astype(r.dtype) for x, r in zip(labels, found, strict=True)]
    states = [x.removeprefix("final_") for x in labels[1:]] if state is not None else []
    gradients = zip((f"gradient/{x}" for x in (*names, *states)), map(unwrap, pull(cotangents)), strict=True)
    return dict(zip(labels, map(np.asarray, found), strict=True)) | dict(gradients)


def failing(form, vector, precision, change=dict):
    """Return the names of the results that are further from the vector than its tolerance."""
    found = results(form, vector, np.dtype(precision).type, change)
    assert found.keys() == vector.tolerances.keys()
    return [
        name
        for name, x in found.items()
        if not np.all(np.abs(x - vector.arrays[name]) <= vector.tolerances[name][precision])
    ]


@pytest.mark.parametrize("name", SUBJECTS)
def test_all_forms_meet_the_tolerance_in_floating_point(name):
    subject = SUBJECTS[name]
    siblings = [x for x in forms() if full_name(x).startswith(f"{subject.mechanism}.") and x.axes == subject.form.axes]
    assert [x.function.__name__ for x in siblings] == list(subject.forms)
    for case in cases(name, "one_token", "start_state", "shut_gate"):
        for form in siblings:
            for precision in ("float64", "float32"):
                wrong = failing(form, vector(name, case), precision)
                assert not wrong, f"{form.name} in {precision}, {case}: {wrong}"


@pytest.mark.parametrize(
    ("name", "argument", "slip"),
    [
        ("memory.delta_rule", "beta", lambda x: x**2),
        ("memory.gated_delta_rule.log_decay_T", "log_decay", unwrap),
        ("ssm.s4d", "C", mg.conj),
    ],
)
def test_a_faulty_form_fails(name, argument, slip):
    form, case = SUBJECTS[name].form, vector(name, "start_state")
    wrong = failing(form, case, "float64", lambda tokens: {**tokens, argument: slip(tokens[argument])})
    assert f"gradient/{argument}" in wrong
    assert ("y" in wrong) == (argument != "log_decay")


@pytest.mark.parametrize("name", ["memory.delta_rule", "memory.linear_attention", "ssm.lti.A_N_N", "ssm.lssl"])
def test_rational_results_are_the_nearest_to_the_exact_ones(name):
    form, found = SUBJECTS[name].form, vector(name, "start_state")
    exact = np.frompyfunc(Fraction, 1, 1)
    tokens = {key: exact(x) for key, x in found.inputs.arrays.items()}
    state = rebuild(found.inputs.state, [exact(x) for x in leaves(found.inputs.state)])
    y, after = form(tokens, state, found.inputs.chunk)
    for label, x in zip(["y", "final_state"], [y, after], strict=True):
        assert np.array_equal(np.vectorize(float)(x), found.arrays[label])  # float rounds a fraction once


@pytest.mark.parametrize("name", ["ssm.s4", "recurrent.lstm", "memory.ttt.mlp"])
def test_half_the_bits_give_the_same_numbers(name):
    few = evaluate.evaluate(SUBJECTS[name], inputs.CASES["start_state"], bits=128)
    for key, x in vector(name, "start_state").arrays.items():
        assert np.array_equal(x, few.arrays[key]), key


def test_the_formula_of_the_inputs():
    """The first outputs of SplitMix64 from seed 0, as in the literature's test vectors."""
    generator = inputs.SplitMix(0)
    assert [generator.next() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert set(inputs.SplitMix(1).integers(-2, 3, (500,))) == {-2, -1, 0, 1, 2}
    for x in vector("memory.gated_delta_rule.log_decay_T", "short").inputs.arrays.values():
        assert np.array_equal(x * 4096, np.rint(x * 4096))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors") / "out"
    write(out, ["memory.gated_delta_rule.log_decay_T", "ssm.s4d"])
    return out


def test_the_three_formats_hold_the_same_arrays(folder):
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["version"] == inputs.VERSION
    assert list(manifest["mechanisms"]) == ["memory.gated_delta_rule.log_decay_T", "ssm.s4d"]
    for name, entry in manifest["mechanisms"].items():
        for file, about in entry["files"].items():
            assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == about["sha256"]
        tensors = load_file(folder / f"{name}.safetensors")
        lines = json.loads((folder / f"{name}.json").read_text(encoding="ascii"))
        shapes = {array: x["shape"] for case in entry["cases"].values() for array, x in case["arrays"].items()}
        with np.load(folder / f"{name}.npz") as archive:
            assert set(archive) == set(tensors) == set(lines) == set(shapes)
            for array, x in tensors.items():
                assert x.dtype == archive[array].dtype == np.float64
                assert list(x.shape) == shapes[array]
                assert np.array_equal(x, archive[array])
                assert np.array_equal(x, np.vectorize(float, otypes=[float])(np.array(lines[array], dtype=object)))
    gates = load_file(folder / "memory.gated_delta_rule.log_decay_T.safetensors")["shut_gate/log_decay"]
    assert np.isneginf(gates).sum() == 2 * 3 * 2


def test_the_manifest_says_what_a_port_needs(folder):
    entry = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["mechanisms"]
    gated, s4d = entry["memory.gated_delta_rule.log_decay_T"], entry["ssm.s4d"]
    assert [x["name"] for x in gated["arguments"]] == ["q", "k", "v", "beta", "log_decay"]
    assert gated["valid for the forms"] == ["recurrent", "chunkwise", "fused"]
    assert gated["state"]["arrays"] == [{"name": "state", "axes": "*batch K V"}]
    assert "logarithm" in gated["gates"]
    assert {x["name"] for x in gated["statements"]} >= {
        "every_mechanism.forms_agree[gated_delta_rule.chunkwise.log_decay T]",
        "every_mechanism.streaming[gated_delta_rule.recurrent.log_decay T]",
    }
    assert {x["name"] for x in s4d["arguments"] if x["complex"]} == {"Lambda", "B", "C"}
    tolerance = gated["cases"]["long"]["arrays"]["long/y"]["tolerance"]
    assert 1e-16 < tolerance["float64"] < 1e-13 < 1e-7 < tolerance["float32"] < 1e-4


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    np.random.seed(7)
    write(tmp_path / "again", ["ssm.s4d"])
    for file in ("ssm.s4d.npz", "ssm.s4d.safetensors", "ssm.s4d.json"):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()
    assert sorted(x.name for x in tmp_path.iterdir()) == ["again"]  # and no temporary folder


def run(*arguments):
    done = CliRunner().invoke(app, ["vectors", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command(tmp_path):
    (tmp_path / "out").mkdir()
    status, output = run(tmp_path / "out", "--only", "memory.linear_attention")
    assert status == 0
    assert "memory.linear_attention: one_token, short, start_state, repeated_keys, long\n" in output
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda out: out.write_text(""), (), "out is a file, expected a new or an empty folder"),
        (
            lambda out: (out.mkdir(), (out / "x").write_text("")),
            (),
            "out is not empty, expected a new or an empty folder",
        ),
        (lambda out: None, ("--only", "memory.delta"), "(nearest: memory.delta_rule)"),
    ],
)
def test_errors_are_one_line(tmp_path, prepare, arguments, message):
    prepare(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    status, output = run(tmp_path / "out", *arguments)
    assert status == 2
    assert output.startswith("proofs: ") and message in output and output.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'a'}"):
        write(tmp_path / "a" / "out", ["memory.linear_attention"])
    if hasattr(os, "geteuid") and os.geteuid():  # root may write anywhere
        tmp_path.chmod(0o500)
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            write(tmp_path / "out", ["memory.linear_attention"])
        tmp_path.chmod(0o700)


def test_a_missing_library_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^vectors: mpmath is missing, .* pip install -e '.\[check\]'$"):
        write(tmp_path / "out")


def test_nothing_is_left_of_a_run_that_ends_early(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "npz", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", ["memory.linear_attention"])
    assert list(tmp_path.iterdir()) == []
