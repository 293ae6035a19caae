"""Mutated kernels, and a search for a schedule under which they fail."""

import functools
import re

import pytest

from gpu import emulator, launch

SEEDS = range(600)


@pytest.fixture
def assert_detected(monkeypatch, tmp_path):
    """Return a function that runs a mutated kernel and fails unless its results differ or it raises an error."""

    def check(source, original, mutated, call, *, which=0):
        broken = tmp_path / f"{source}.cu"
        files = launch.KERNELS / broken.name, *launch.KERNELS.glob("*.cuh")
        codes = {file.name: file.read_text(encoding="utf-8") for file in files}
        containing = [name for name in included(codes, broken.name) if codes[name].count(original) > which]
        assert containing, f"{source}.cu and what it includes do not hold {original!r} {which + 1} times"
        parts = codes[containing[0]].split(original)
        codes[containing[0]] = original.join(parts[: which + 1]) + mutated + original.join(parts[which + 1 :])
        for name, code in codes.items():
            (tmp_path / name).write_text(code, encoding="utf-8")
        with emulator.schedule(0):
            expected = call()

        @functools.cache
        def module(name, defines):
            return emulator.Module(broken if name == source else launch.KERNELS / f"{name}.cu", defines)

        with monkeypatch.context() as patch:
            patch.setattr(launch, "_emulated_module", module)
            assert difference(expected, call), (
                f"{source}.cu, {mutated!r} for {original!r} ({which}): no schedule shows it"
            )

    return check


@pytest.fixture
def assert_every_barrier_is_needed():
    """Return a function that skips each barrier of a source in turn, and fails where no schedule shows it.

    `exempt` are parts of lines whose barriers order memory, of which the host has no model.
    """

    def check(source, call, *, exempt=()):
        file = next(launch.KERNELS.glob(f"{source}.cu*"))
        lines = file.read_text(encoding="utf-8").splitlines()
        barriers = [i for i, line in enumerate(lines, 1) if re.search(r"__sync(threads|warp)\(\)", line)]
        with emulator.schedule(0):
            expected = call()
        for line in barriers:
            if not any(part in lines[line - 1] for part in exempt):
                outcome = difference(expected, call, skipped_barrier=line)
                assert outcome, f"{file.name}, line {line}: no schedule needs this barrier"

    return check


def included(codes, name):
    """Return the names of a source and of the headers it includes."""
    headers = re.findall(r'^#include "(.*)"', codes[name], re.MULTILINE)
    return [name, *(other for header in headers for other in included(codes, header))]


def difference(expected, call, *, skipped_barrier=0):
    """Return the outcome of the first schedule under which the call fails or returns other bits, or ""."""
    for seed in SEEDS:
        try:
            with emulator.schedule(seed, skipped_barrier=skipped_barrier):
                results = call()
        except emulator.KernelError as error:
            return str(error)
        if any(a.tobytes() != b.tobytes() for a, b in zip(expected, results, strict=True)):
            return f"schedule {seed}: other bits"
    return ""
