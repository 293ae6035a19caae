"""Kernels that somebody has broken, and the schedule that shows it."""

import re

import pytest

from gpu import emulator, launch

SEEDS = range(600)


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """A function that says how a broken kernel shows, or fails: the test is blind, or what was taken out idle."""

    def how(source, right, wrong, call, *, which=0):
        broken = tmp_path / f"{source}.cu"
        files = launch.KERNELS / broken.name, *launch.KERNELS.glob("*.cuh")
        codes = {file.name: file.read_text(encoding="utf-8") for file in files}
        holds = [name for name in included(codes, broken.name) if codes[name].count(right) > which]
        assert holds, f"{source}.cu and what it includes do not hold {right!r} {which + 1} times"
        parts = codes[holds[0]].split(right)
        codes[holds[0]] = right.join(parts[: which + 1]) + wrong + right.join(parts[which + 1 :])
        for name, code in codes.items():
            (tmp_path / name).write_text(code, encoding="utf-8")
        with emulator.schedule(0):
            expected = call()
        with monkeypatch.context() as patch:
            patch.setattr(
                launch,
                "_emulated_module",
                lambda name, defines: emulator.Module(
                    broken if name == source else launch.KERNELS / f"{name}.cu", defines
                ),
            )
            said = difference(expected, call)
        assert said, f"{source}.cu, {wrong!r} for {right!r} ({which}): no schedule shows it"

    return how


@pytest.fixture
def every_barrier_is_missed():
    """A function that leaves out each barrier of a source in turn, and fails where no schedule shows it.

    `unseen` are parts of lines whose barriers stand for what the host has no model of: the order of memory.
    """

    def check(source, call, *, unseen=()):
        file = next(launch.KERNELS.glob(f"{source}.cu*"))
        lines = file.read_text(encoding="utf-8").splitlines()
        barriers = [i for i, line in enumerate(lines, 1) if re.search(r"__sync(threads|warp)\(\)", line)]
        with emulator.schedule(0):
            expected = call()
        for line in barriers:
            if not any(part in lines[line - 1] for part in unseen):
                shown = difference(expected, call, skipped_barrier=line)
                assert shown, f"{file.name}, line {line}: no schedule misses it"

    return check


def included(codes, name):
    """The names of a source and of what it includes."""
    headers = re.findall(r'^#include "(.*)"', codes[name], re.MULTILINE)
    return [name, *(other for header in headers for other in included(codes, header))]


def difference(expected, call, *, skipped_barrier=0):
    """What the first schedule says under which the call fails or makes other bits, or nothing."""
    for seed in SEEDS:
        try:
            with emulator.schedule(seed, skipped_barrier=skipped_barrier):
                made = call()
        except emulator.KernelError as error:
            return str(error)
        if any(a.tobytes() != b.tobytes() for a, b in zip(expected, made, strict=True)):
            return f"schedule {seed}: other bits"
    return ""
