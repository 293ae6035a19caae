"""Change each rule of `minigrad.primitives` in turn, and see that the oracle notices.

    python -m tests.oracle.mutants [FUNCTION …] [--sample N]

A mutant is one module with one expression changed: a conjugate or a sign dropped, operands swapped, a comparison
turned, a constant off by one, an option or a factor left out, the argument in place of the result. It is loaded in a
process of its own, where the checks of those rows run whose derivatives reach the changed lines. `survivors.txt` lists
the mutants that none notices, each with the reason; what only raises errors is tested elsewhere and stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "minigrad" / "primitives"
SURVIVORS = Path(__file__).with_name("survivors.txt")
MODULES = sorted(p.stem for p in FOLDER.glob("*.py") if "@primitive" in p.read_text(encoding="utf-8"))
DROPPED = (
    "conj real flip spread broadcast_to reshape matrix_transpose _adjoint tril triu expand_dims where sqrt exp".split()
)
OPPOSITE = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Pow: ast.Mult,
    ast.Mod: ast.Add,
}
OPPOSITE |= {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPPOSITE |= {
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
    ast.RShift: ast.LShift,
    ast.LShift: ast.RShift,
}
OPPOSITE |= {ast.And: ast.Or, ast.Or: ast.And, ast.FloorDiv: ast.Mult, ast.MatMult: ast.Add}
EXCHANGED = (("x", "out"), ("x", "y"), ("x", "g"), ("a", "out"))
ROWS_EACH, SECONDS = 12, 120  # rows that judge a mutant at most, and how long they may take


class Mutant(NamedTuple):
    """A changed expression: where, which of the module's mutants, and what it says instead."""

    module: str
    function: str
    line: int
    number: int
    change: str

    def __str__(self) -> str:
        return f"{self.module}.{self.function}: {self.change}"


def variants(node: ast.AST, parameters: set[str]) -> Iterator[ast.AST]:
    """Yield the expressions that may stand in place of one."""
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BinOp):
        yield ast.BinOp(node.left, OPPOSITE[type(node.op)](), node.right)
        yield node.left
        yield node.right
        if isinstance(node.op, (ast.Sub, ast.Div, ast.MatMult, ast.Pow)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(OPPOSITE[type(node.op)](), node.values)
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        yield ast.Compare(node.left, [OPPOSITE[type(node.ops[0])](), *node.ops[1:]], node.comparators)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        yield ast.Constant(
            not node.value if type(node.value) is bool else 1 - node.value if node.value in (0, 1) else node.value - 1
        )
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for one, other in EXCHANGED:
            for name, instead in ((one, other), (other, one)):
                if node.id == name and {name, instead} <= parameters:
                    yield ast.Name(instead, ast.Load())
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in DROPPED and node.args:
            yield node.args[0]
        for i in range(len(node.keywords)):
            yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])
        if len(node.args) == 2 and not any(isinstance(a, ast.Starred) for a in node.args):
            yield ast.Call(node.func, node.args[::-1], node.keywords)


def places(tree: ast.Module) -> Iterator[tuple[str, set[str], ast.AST, str, int | None]]:
    """Yield every expression inside a function: the function, its parameters, and where the expression hangs."""

    def walk(node: ast.AST, function: str, parameters: set[str]) -> Iterator:
        if isinstance(node, (ast.FunctionDef, ast.Lambda)):
            function = function or getattr(node, "name", "")
            parameters = {a.arg for a in [*node.args.args, *node.args.kwonlyargs]}
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "args") and isinstance(value, ast.arguments | ast.expr):
                continue
            for i, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(item, ast.AST) or isinstance(item, ast.Raise) or _guards(item):
                    continue
                known = set() if field == "decorator_list" else parameters
                if isinstance(item, ast.expr) and function:
                    yield function, known, node, field, i
                yield from walk(item, function, known)

    for statement in tree.body:
        yield from walk(statement, getattr(statement, "name", ""), set())


def _guards(node: ast.AST) -> bool:
    """Return whether a statement only raises an error where something is wrong, or says what a function does."""
    if isinstance(node, ast.If):
        return all(isinstance(s, ast.Raise) for s in node.body) and not node.orelse
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def changes(module: str) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield every mutant of a module with its tree, which is whole again when the next is asked for."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    number = 0
    for function, parameters, parent, field, i in list(places(tree)):
        holder, key = (vars(parent), field) if i is None else (getattr(parent, field), i)
        original = holder[key]
        for variant in variants(original, parameters):
            holder[key] = ast.fix_missing_locations(ast.copy_location(copy.deepcopy(variant), original))
            yield (
                Mutant(
                    module, function, original.lineno, number, f"{ast.unparse(original)}  →  {ast.unparse(variant)}"
                ),
                tree,
            )
            number += 1
        holder[key] = original


def every_mutant() -> list[Mutant]:
    """Return the mutants of all chapters, those that say the same in one function once."""
    return list({str(m): m for module in MODULES for m, _ in changes(module)}.values())


class Loader(importlib.machinery.SourceFileLoader, importlib.abc.MetaPathFinder):
    """Load the mutated module in place of its own."""

    def __init__(self, mutant: Mutant):
        super().__init__(f"minigrad.primitives.{mutant.module}", str(FOLDER / f"{mutant.module}.py"))
        self.mutant = mutant

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> Any:
        tree = next(tree for m, tree in changes(self.mutant.module) if m.number == self.mutant.number)
        return compile(tree, self.path, "exec")


# ---- in a process of its own: minigrad is imported here only


def _reached(queue: Any) -> None:
    """Send, for every row, the lines of the chapters whose functions its derivatives run."""
    from tests.oracle import checks
    from tests.oracle.batches import BATCHES, check_batches
    from tests.oracle.domains import CONSTANT, ROWS

    found: dict[str, set] = {}
    for name in (*ROWS, *CONSTANT):
        codes = set()
        sys.setprofile(lambda frame, event, _, codes=codes: codes.add(frame.f_code) if event == "call" else None)
        try:
            with checks.quiet():
                checks.touch(name)
                if name in BATCHES:
                    with contextlib.suppress(Exception):
                        check_batches(ROWS[name], name)
        finally:
            sys.setprofile(None)
        chapters = [c for c in codes if Path(c.co_filename).parent == FOLDER]
        found[name] = {(Path(c.co_filename).stem, line) for c in chapters for *_, line in c.co_lines() if line}
    queue.put(found)


def _judge(queue: Any, mutant: Mutant, rows: list[str]) -> None:
    """Send the first check that notices the mutant, or None."""
    sys.meta_path.insert(0, Loader(mutant))
    try:
        from tests.oracle import checks
        from tests.oracle.batches import check_batches
        from tests.oracle.domains import ROWS
        from tests.oracle.range import check_range
    except Exception as error:
        return queue.put(f"import: {type(error).__name__}")
    with checks.quiet():
        for name in rows:
            tests: list = [lambda name=name: checks.check(name)]
            if name in ROWS:
                tests += [lambda name=name: check_batches(ROWS[name], name)]
                tests += [lambda name=name, n=n: check_range(name, "f", n) for n in (0, 1) if ROWS[name].exact]
            for test in tests:
                try:
                    test()
                except Exception as error:
                    return queue.put(f"{name}: {type(error).__name__}: {error}")
    return queue.put(_engine_tests(rows))


def _engine_tests(rows: list[str]) -> str | None:
    """Return the first of the engine's own tests of these functions that fails, or None."""
    from tests.engine import test_primitives as engine

    for case in engine.CASES:
        if case.split()[0] in rows or case in rows:
            for test in (engine.test_rule, engine.test_values_are_numpys_and_dtypes_are_kept):
                try:
                    test(case)
                except Exception as error:
                    return f"tests/engine: {case}: {type(error).__name__}"
    return None


def _in_process(work: Any, *arguments: Any) -> Any:
    """Return what a function sends from a process of its own; a word where it crashes or takes too long."""
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_sending, args=(send, work, *arguments), daemon=True)
    process.start()
    send.close()
    try:
        return receive.recv() if receive.poll(SECONDS) else "took too long"
    except EOFError:
        return "crashed"
    finally:
        process.kill()
        process.join()


class _Queue:
    def __init__(self, pipe: Any):
        self.put = pipe.send


def _sending(pipe: Any, work: Any, *arguments: Any) -> None:
    work(_Queue(pipe), *arguments)


def judged(mutants: list[Mutant]) -> Iterator[tuple[Mutant, str | None]]:
    """Yield each mutant and what noticed it; None where nothing did."""
    import mpmath  # noqa: F401 - loaded once here, and there by every process that is forked
    import numba  # noqa: F401
    import scipy.linalg
    import scipy.sparse
    import scipy.special  # noqa: F401

    reached = _in_process(_reached)
    for mutant in mutants:
        rows = [n for n, lines in reached.items() if (mutant.module, mutant.line) in lines]
        rows.sort(key=lambda n: (n.rpartition(".")[2] != mutant.function.strip("_"), len(reached[n])))
        yield mutant, _in_process(_judge, mutant, rows[:ROWS_EACH])


def explained() -> dict[str, str]:
    """Return the survivors that are known, with the reason for each."""
    lines = SURVIVORS.read_text(encoding="utf-8").splitlines() if SURVIVORS.exists() else []
    pairs = [line.rpartition("  # ") for line in lines if line and not line.startswith("#")]
    return {mutant: why for mutant, _, why in pairs}


def sampled(count: int) -> list[Mutant]:
    """Return some mutants, the same each time, of those that nothing explains."""
    known = explained()
    return random.Random(0).sample([m for m in every_mutant() if str(m) not in known], count)


def main() -> int:
    """Judge the mutants of the named functions, or a sample, or all; return 1 where an unexplained one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("functions", nargs="*", help="such as multiply or linalg.solve; all when none is named")
    parser.add_argument("--sample", type=int, help="as many, drawn the same each time")
    options = parser.parse_args()
    mutants = sampled(options.sample) if options.sample else every_mutant()
    if options.functions:
        mutants = [
            m
            for m in mutants
            if {m.function, m.function.strip("_"), f"{m.module}.{m.function}", m.module} & set(options.functions)
        ]
    known, survivors, unexplained = explained(), 0, 0
    for n, (mutant, noticed) in enumerate(judged(mutants), 1):
        survivors += noticed is None
        unexplained += noticed is None and str(mutant) not in known
        why = known.get(str(mutant), "unexplained") if noticed is None else noticed[:100].replace("\n", " ")
        print(f"{n}/{len(mutants)} {'survived' if noticed is None else 'killed'} {mutant}  # {why}", flush=True)
    print(f"{len(mutants) - survivors} of {len(mutants)} killed, {unexplained} survivors unexplained")
    return int(unexplained > 0)


if __name__ == "__main__":
    sys.exit(main())
