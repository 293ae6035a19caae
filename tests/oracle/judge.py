"""Judge mutants: put one in place in a process of its own, and run the checks of the rows that reach it."""

from __future__ import annotations

import ast
import contextlib
import gc
import multiprocessing
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from tests.engine import test_kinks
from tests.engine import test_primitives as engine
from tests.kinks import KINKS
from tests.oracle import checks
from tests.oracle.batches import BATCHES, check_batches
from tests.oracle.batches import cases as batch_cases
from tests.oracle.cases import pulled, quiet, weights
from tests.oracle.domains import CONSTANT, ROWS
from tests.oracle.mutants import FOLDER, MODULES, Mutant, callers, changes, population
from tests.oracle.range import check_range

ROWS_EACH, SECONDS = 12, 120  # rows that judge a mutant at most, and how long they may take


def judged(mutants: list[Mutant]) -> Iterator[tuple[Mutant, str | None]]:
    """Yield each mutant and what noticed it; None where nothing did."""
    chosen, reached, parts, near = set(mutants), _reached(), population(), callers()
    functions = [f for f in gc.get_objects() if isinstance(f, types.FunctionType) and _of_chapter(f.__code__)]
    gc.collect()
    gc.freeze()  # so that the processes share it
    for module in MODULES:
        path = str(FOLDER / f"{module}.py")
        with open(path, encoding="utf-8") as file:
            before = _codes(ast.parse(file.read()), path)
        for mutant, tree in changes(module, parts):
            if mutant not in chosen:
                continue
            changed = [(old, new) for old, new in zip(before, _codes(tree, path), strict=True) if old != new]
            swapped = [(f, new) for old, new in changed for f in functions if _same(f.__code__, old)]
            rows = [n for n, lines in reached.items() if (module, mutant.line) in lines]
            names = near.get((module, mutant.function), set())
            rows.sort(key=lambda n: (n.rpartition(".")[2] not in names, len(reached[n])))
            yield mutant, _in_process(swapped, rows[:ROWS_EACH])


def _of_chapter(code: types.CodeType) -> bool:
    return code.co_filename.startswith(str(FOLDER))


def _same(one: types.CodeType, other: types.CodeType) -> bool:
    """Return whether two codes are of the same place: two rules on a line differ in their columns only."""
    return one == other and list(one.co_positions()) == list(other.co_positions())


def _reached() -> dict[str, set[tuple[str, int]]]:
    """Return, for every row, the lines of the chapters whose functions its derivatives run."""
    result: dict[str, set] = {}
    for name in (*ROWS, *CONSTANT):
        codes: set[types.CodeType] = set()
        sys.setprofile(lambda frame, event, _, codes=codes: codes.add(frame.f_code) if event == "call" else None)
        try:
            with quiet(), contextlib.suppress(Exception):
                checks.touch(name)
                for arrays, options, _ in batch_cases(name, "f") if name in BATCHES else ():
                    pulled(
                        lambda *xs, n=name, o=options: ROWS[n].call(checks.mg, *xs, **o),
                        arrays,
                        weights(ROWS[name].call(checks.mg, *arrays, **options)),
                    )
        finally:
            sys.setprofile(None)
        chapters = [c for c in codes if _of_chapter(c)]
        result[name] = {(_stem(c), line) for c in chapters for *_, line in c.co_lines() if line}
    return result


def _stem(code: types.CodeType) -> str:
    return code.co_filename.rpartition("/")[2].removesuffix(".py")


def _in_process(swapped: list, rows: list[str]) -> str | None:
    """Return what notices functions with other code, from a process of its own that may crash or take too long."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_judge, args=(send, swapped, rows), daemon=True)
    process.start()
    send.close()
    try:
        return receive.recv() if receive.poll(SECONDS) else "took too long"
    except EOFError:
        return "crashed"
    finally:
        process.kill()
        process.join()


def _judge(pipe: Any, swapped: list, rows: list[str]) -> None:
    for function, code in swapped:
        function.__code__ = code
    with quiet():
        for label, test in _tests(rows):
            try:
                test()
            except Exception as error:
                return pipe.send(f"{label}: {type(error).__name__}: {error}")
    return pipe.send(None)


def _codes(tree: ast.Module, path: str) -> list[types.CodeType]:
    """Return the code of a module's functions and of the lambdas outside them."""
    return [c for c in compile(tree, path, "exec").co_consts if isinstance(c, types.CodeType)]


def _tests(rows: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the checks of rows, those first that notice most, and then the engine's own tests of the functions."""
    differentiable = [n for n in rows if n in ROWS]
    for name in differentiable:
        yield name, lambda name=name: checks.check_gradients(ROWS[name])
    for name in rows[:4]:
        yield name, lambda name=name: checks.check(name)
    for name in differentiable[:2]:
        yield name, lambda name=name: check_batches(ROWS[name], name)
        for kind, order in (("f", 0), ("f", 1), ("d", 1), ("d", 2)) if ROWS[name].exact else ():
            yield name, lambda name=name, kind=kind, order=order: check_range(name, kind, order)
    for kink in KINKS:
        for record in (False, True):
            yield f"a kink: {kink}", lambda kink=kink, record=record: test_kinks.test_row(kink, record)
    for case in engine.CASES:
        if case.split()[0] in rows or case in rows:
            yield "tests/engine", lambda case=case: engine.test_rule(case)
            yield "tests/engine", lambda case=case: engine.test_values_are_numpys_and_dtypes_are_kept(case)
