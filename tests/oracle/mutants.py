"""Change each rule of `minigrad.primitives` in turn, and see that the oracle notices.

    python -m tests.oracle.mutants [FUNCTION …] [--sample N] [--log FILE] [--count]

The rules are the adjoints given to `@primitive` and the functions that they call, as far as these are not public and do
more than check or convert arguments (`LEFT_OUT`); derivatives that are primitives themselves count. A mutant is one of
them with one expression changed: a conjugate, a sign, an axis, a factor or a broadcast dropped, operands or the
argument and the result exchanged, a comparison turned, a constant off by one. The checks of those rows run on it
whose derivatives reach it. `survivors.txt` lists the mutants that none notices, each with the reason.
"""

from __future__ import annotations

import argparse
import ast
import copy
import functools
import inspect
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "minigrad" / "primitives"
SURVIVORS = Path(__file__).with_name("survivors.txt")
MODULES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__")

# ---- the population

LEFT_OUT = {
    "arguments.array": "converts numbers and lists",
    "arguments.filled_like": "makes constants in the library and on the device of another array",
    "arguments.integer": "checks an argument",
    "arguments.integers": "checks an argument",
    "arguments.normalize_axes": "checks an argument",
    "arguments.normalize_axis": "checks an argument",
    "arguments.normalize_optional_axis": "checks an argument",
    "arguments.refuse_complex": "checks an argument",
    "activations._special": "looks a function up in the array's library",
    "dtypes.library_of": "looks the library of a dtype up",
    "einsum._einsum": "calls the array library, with or without a search for a good order",
    "elementwise.complex_valued": "asks for the dtype of an array or a number",
    "elementwise.refuse_complex": "checks an argument",
    "factorizations._no_rule": "raises an error",
    "gated._chain": "chooses between a compiled form and the plain one",
    "indexing._add_at": "adds in place, in the way of each array library",
    "indexing._to_dense": "adds pieces in the library and on the device of the first of them",
    "indexing._axis": "checks an argument",
    "indexing._may_repeat": "chooses between two ways of adding",
    "normalisers._in_whole_vectors": "chooses between a compiled form and the plain one",
    "products._product": "chooses between ways to multiply matrices",
    "solves._broadcast_batch": "broadcasts for CuPy, whose solver does not",
    "solves.square": "checks an argument",
}
# Functions of an array that know nothing of its numbers: two arrays of one shape and dtype are alike to them.
NO_CALCULUS = {"complex_valued", "is_complex", "finfo", "namespace", "zeros", "ones", "ones_like", "zeros_like"}
NO_CALCULUS |= {"refuse_complex"}
CHOICES = {"chain", "_chain", "scan_kernel", "_in_whole_vectors"}  # a compiled form or the plain one
COMMUTATIVE = {"maximum", "hypot", "logaddexp", "max", "_distance", "_cos_vjp"}
OPTIONS = {"strict", "optimize", "device", "copy", "dtype"}  # no calculus
DEFAULTS = {("lower", "False")}  # keywords that only repeat a default


def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every chapter."""
    return {module: ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8")) for module in MODULES}


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the names that come from other chapters: "sum_" is "reductions.sum"."""
    prefix = "minigrad.primitives."
    return {
        name.asname or name.name: f"{node.module.removeprefix(prefix)}.{name.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(prefix)
        for name in node.names
    }


def _rules(node: ast.FunctionDef) -> list[ast.expr]:
    """Return the adjoints given to @primitive; none for another function."""
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    return [k.value for d in calls if getattr(d.func, "id", "") == "primitive" for k in d.keywords]


def population() -> set[tuple[str, str, str]]:
    """Return (chapter, function, what is changed of it): "rule" or, of a function that rules call, "body"."""
    import minigrad as mg
    import minigrad.nn
    from tests.oracle.domains import CONSTANT, ROWS

    named = [functools.reduce(getattr, name.split("."), mg) for name in (*ROWS, *CONSTANT) if name != "getitem"]
    offered = {id(inspect.unwrap(f)) for f in (*named, *vars(mg).values()) if callable(f)}
    every = trees()
    functions = {module: _functions(tree) for module, tree in every.items()}
    imports = {module: _imports(tree) for module, tree in every.items()}
    parts: set[tuple[str, str, str]] = set()

    def follow(module: str, node: ast.AST) -> None:
        for name in (n.id for n in ast.walk(node) if isinstance(n, ast.Name)):
            home, _, called = imports[module].get(name, f"{module}.{name}").rpartition(".")
            target = functions.get(home, {}).get(called)
            if target is None or f"{home}.{called}" in LEFT_OUT:
                continue
            function = inspect.unwrap(getattr(sys.modules[f"minigrad.primitives.{home}"], called))
            if id(function) not in offered and (home, called, "body") not in parts:
                parts.add((home, called, "body"))
                for statement in target.body:
                    follow(home, statement)

    for module in every:
        for name, node in functions[module].items():
            for rule in _rules(node):
                parts.add((module, name, "rule"))
                follow(module, rule)
    return parts


def callers() -> dict[tuple[str, str], set[str]]:
    """Return the names of the functions of a chapter that mention one of its functions, and that one's own."""
    names: dict[tuple[str, str], set[str]] = {}
    for module, tree in trees().items():
        for name, node in _functions(tree).items():
            for called in {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {name}:
                names.setdefault((module, called), set()).add(name.strip("_"))
    return names


# ---- what is changed

DROPPED = (
    "conj real flip spread broadcast_to reshape matrix_transpose adjoint tril triu expand_dims where sqrt exp".split()
)
OPPOSITE: dict[type, type] = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
OPPOSITE |= {ast.Pow: ast.Mult, ast.Mod: ast.Add, ast.FloorDiv: ast.Mult, ast.MatMult: ast.Add}
OPPOSITE |= {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
OPPOSITE |= {ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.And: ast.Or, ast.Or: ast.And}
EXCHANGED = (("x", "out"), ("x", "y"), ("x", "g"), ("a", "out"))


class Mutant(NamedTuple):
    """A changed expression: where, which of the chapter's mutants, and what it says instead."""

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
        if type(node.op) in OPPOSITE:
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
        if ast.unparse(node.body).rpartition("real")[2] != f"({ast.unparse(node.orelse)})":  # of a real number: itself
            yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value = node.value
        yield ast.Constant(not value if type(value) is bool else 1 - value if value in (0, 1) else value - 1)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for pair in EXCHANGED:
            for name, instead in (pair, pair[::-1]):
                if node.id == name and {name, instead} <= parameters:
                    yield ast.Name(instead, ast.Load())
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in DROPPED and node.args:
            yield node.args[0]
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in OPTIONS and (keyword.arg, ast.unparse(keyword.value)) not in DEFAULTS:
                yield ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if len(node.args) == 2 and name not in COMMUTATIVE and not any(isinstance(a, ast.Starred) for a in node.args):
            yield ast.Call(node.func, node.args[::-1], node.keywords)


def places(root: ast.AST, parameters: set[str]) -> Iterator[tuple[set[str], ast.AST, str, int | None]]:
    """Yield every expression that counts: the parameters of its function, and where it hangs."""
    if isinstance(root, (ast.FunctionDef, ast.Lambda)):
        parameters = {a.arg for a in [*root.args.args, *root.args.kwonlyargs]}
    elsewhere = isinstance(root, ast.If) and ast.unparse(root.test).partition(" and ")[0] == "xp is not np"
    for field, value in ast.iter_fields(root):
        if elsewhere and field != "orelse":  # for other libraries' arrays
            continue
        if field in ("annotation", "returns", "decorator_list") or isinstance(value, ast.arguments):
            continue
        for i, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(item, ast.AST) or _no_calculus(item):
                continue
            if isinstance(item, ast.expr):
                yield parameters, root, field, i
            yield from places(item, parameters)


def _no_calculus(node: ast.AST) -> bool:
    """Return whether a node raises an error, chooses the compiled form, asks for a dtype, or is text."""
    if isinstance(node, ast.If):
        if all(isinstance(s, ast.Raise) for s in node.body) and not node.orelse:
            return True
        return any(isinstance(n, ast.Call) and getattr(n.func, "id", "") in CHOICES for n in ast.walk(node.test))
    if isinstance(node, ast.keyword):
        return node.arg in OPTIONS
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Call):
        return getattr(node.func, "attr", getattr(node.func, "id", "")) in NO_CALCULUS
    return isinstance(node, ast.Raise) or (isinstance(node, ast.Attribute) and node.attr == "dtype")


def changes(module: str, parts: set[tuple[str, str, str]]) -> Iterator[tuple[Mutant, ast.Module]]:
    """Yield every mutant of a chapter with its tree, which is whole again when the next is asked for."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    number, counts = 0, {}
    for name, node in _functions(tree).items():
        holders: list[tuple[set[str], ast.AST, str, int | None]] = []
        if (module, name, "rule") in parts:
            holders += [p for rule in _rules(node) for p in places(rule, set())]
        if (module, name, "body") in parts:
            holders += places(node, set())
        for parameters, parent, field, i in holders:
            holder, key = (vars(parent), field) if i is None else (getattr(parent, field), i)
            original = holder[key]
            for variant in variants(original, parameters):
                holder[key] = ast.fix_missing_locations(ast.copy_location(copy.deepcopy(variant), original))
                change = f"{ast.unparse(original)}  →  {ast.unparse(variant)}"
                counts[name, change] = counts.get((name, change), 0) + 1
                if counts[name, change] > 1:
                    change += f"  ({counts[name, change]})"
                yield Mutant(module, name, original.lineno, number, change), tree
                number += 1
            holder[key] = original


def every_mutant() -> list[Mutant]:
    """Return the mutants of all chapters."""
    parts = population()
    return [m for module in MODULES for m, _ in changes(module, parts)]


# ---- the command


def explained() -> dict[str, str]:
    """Return the survivors that are known, with the reason for each."""
    lines = SURVIVORS.read_text(encoding="utf-8").splitlines()
    pairs = [line.rpartition("  # ") for line in lines if line and not line.startswith("#")]
    return {mutant: why for mutant, _, why in pairs}


def _judged(log: Path | None) -> dict[str, bool]:
    """Return whether mutants that stand in a file of results survived."""
    lines = log.read_text(encoding="utf-8").splitlines() if log and log.exists() else []
    pairs = [line.partition("  # ")[0].partition(" ") for line in lines]
    return {mutant: word == "survived" for word, _, mutant in pairs}


def sampled(count: int) -> list[Mutant]:
    """Return those of some mutants, the same each time, that nothing explains."""
    explanations = explained()
    return [m for m in random.Random(0).sample(every_mutant(), count) if str(m) not in explanations]


def main() -> int:
    """Judge the mutants of the named functions, or a sample, or all; return 1 where an unexplained one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("functions", nargs="*", help="a chapter or a function, such as solves or solves._solve")
    parser.add_argument("--sample", type=int, help="as many, drawn the same each time")
    parser.add_argument(
        "--log", type=Path, help="a file of results, which are not judged again and to which these are added"
    )
    parser.add_argument("--count", action="store_true", help="only say how many there are, and what is left out")
    options = parser.parse_args()
    mutants = sampled(options.sample) if options.sample else every_mutant()
    if options.functions:
        mutants = [m for m in mutants if {m.function, f"{m.module}.{m.function}", m.module} & set(options.functions)]
    if options.count:
        parts = population()
        for part in ("rule", "body"):
            print(f"{sum(p[2] == part for p in parts)} functions with a {part}")
        for name, why in LEFT_OUT.items():
            print(f"left out: {name}, which {why}")
        print(f"{len(mutants)} mutants")
        return 0
    from tests.oracle.judge import judged

    explanations, survived_by_name = explained(), _judged(options.log)
    survived_by_name = {str(m): survived_by_name[str(m)] for m in mutants if str(m) in survived_by_name}
    for mutant, noticed in judged([m for m in mutants if str(m) not in survived_by_name]):
        survived_by_name[str(mutant)] = noticed is None
        why = explanations.get(str(mutant), "unexplained") if noticed is None else noticed[:100].replace("\n", " ")
        line = f"{'survived' if noticed is None else 'killed'} {mutant}  # {why}"
        print(f"{len(survived_by_name)}/{len(mutants)} {line}", flush=True)
        if options.log:
            with options.log.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
    survivors = [m for m, survived in survived_by_name.items() if survived]
    unexplained = [m for m in survivors if m not in explanations]
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed, {len(unexplained)} survivors unexplained")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main())
