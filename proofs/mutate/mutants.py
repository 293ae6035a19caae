"""The mutants of a file: its source with one expression changed, by the operators of mutmut and three more.

Three operators are left out, for what they make nearly always raises an error: None for what is assigned, for the
body of a lambda or for an argument. Text, annotations, errors and the conditions that guard them stay as they are, and
so do the arguments of some functions (`KEPT`).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

from proofs.mutate.placing import ROOT
from proofs.mutate.verdicts import Mutant


class Edit(NamedTuple):
    """A replacement in the text of a file."""

    start: int
    stop: int
    text: str


def dropped(node: cst.Call) -> Iterator[cst.BaseExpression]:
    """Yield the argument in place of a call: exp(x) → x."""
    first = node.args[0] if node.args else None
    if first and not first.keyword and not first.star and not isinstance(first.value, (cst.BaseNumber, cst.BaseString)):
        yield _in_parentheses(first.value)


def transposed(node: cst.Attribute) -> Iterator[cst.BaseExpression]:
    """Yield a matrix in place of its transpose."""
    if node.attr.value in ("mT", "T"):
        yield node.value


def shortened(node: cst.BinaryOperation) -> Iterator[cst.BaseExpression]:
    """Yield the left operand in place of a sum, a difference, a product or a quotient."""
    if isinstance(node.operator, (cst.Add, cst.Subtract, cst.Multiply, cst.Divide)):
        yield _in_parentheses(node.left)


def fewer_arguments(node: cst.Call) -> Iterator[cst.Call]:
    """Yield a call without its last argument, or one given by name, as mutmut does, which also takes away others."""
    optional = [i for i, x in enumerate(node.args) if x.keyword or i == len(node.args) - 1]
    for call in mutators.operator_arg_removal(node):
        left = {id(x) for x in call.args}
        if len(left) < len(node.args) and any(id(node.args[i]) not in left for i in optional):
            yield call


SWAPPED = (cst.BinaryOperation, cst.UnaryOperation, cst.BooleanOperation, cst.ComparisonTarget, cst.AugAssign)
OPERATORS: list[tuple[type | tuple[type, ...], Callable[..., Iterable[cst.CSTNode]]]] = [
    (cst.BaseNumber, mutators.operator_number),
    (cst.Name, mutators.operator_name),
    (cst.AugAssign, mutators.operator_augmented_assignment),
    (cst.UnaryOperation, mutators.operator_remove_unary_ops),
    ((cst.Is, cst.IsNot, cst.In, cst.NotIn, cst.Break, cst.Continue), mutators.operator_keywords),
    (SWAPPED, mutators.operator_swap_op),
    (cst.IfExp, mutators.operator_if_exp),
    (cst.Call, fewer_arguments),
    (cst.Call, dropped),
    (cst.Attribute, transposed),
    (cst.BinaryOperation, shortened),
]


KEPT = {"len", "isinstance", "namespace"}  # the last asks for the library of its arguments, which are of one


def _in_parentheses(node: cst.BaseExpression) -> cst.BaseExpression:
    if node.lpar or isinstance(node, (cst.Name, cst.Call, cst.Attribute, cst.Subscript, cst.BaseNumber)):
        return node
    return node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


@functools.cache
def mutants(file: str) -> dict[Mutant, Edit]:
    """Return the mutants of a file of the repository, in its order, each with what to replace."""
    source = (ROOT / file).read_text(encoding="utf-8")
    visitor = _Visitor(file, source)
    MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True).visit(visitor)
    return visitor.found


def changed_source(mutant: Mutant) -> str:
    """Return the text of the file with the change. Raises KeyError where the file has no such mutant."""
    source, edit = (ROOT / mutant.file).read_text(encoding="utf-8"), mutants(mutant.file)[mutant]
    return source[: edit.start] + edit.text + source[edit.stop :]


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, file: str, source: str) -> None:
        super().__init__()
        self.file, self.source, self.module = file, source, cst.Module([])
        self.lines = source.splitlines(keepends=True)
        self.starts = [sum(map(len, self.lines[:i])) for i in range(len(self.lines))]
        self.scopes: list[str] = []
        self.counts: Counter[Mutant] = Counter()
        self.found: dict[Mutant, Edit] = {}

    def on_visit(self, node: cst.CSTNode) -> bool:
        if _is_left_out(node):
            return False
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            self.scopes.append(node.name.value)
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                for changed in operator(node):
                    self.add(node, changed)
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if isinstance(node, (cst.FunctionDef, cst.ClassDef)):
            self.scopes.pop()

    def add(self, node: cst.CSTNode, changed: cst.CSTNode) -> None:
        place: CodeRange = self.get_metadata(PositionProvider, node)
        start, stop = (self.starts[p.line - 1] + p.column for p in (place.start, place.end))
        text = self.module.code_for_node(changed)
        line = self.lines[place.start.line - 1].strip()
        mutant = Mutant(self.file, ".".join(self.scopes), line, f"{_flat(self.source[start:stop])} → {_flat(text)}")
        self.counts[mutant] += 1
        if (count := self.counts[mutant]) > 1:
            mutant = Mutant(mutant.file, mutant.function, line, f"{mutant.change} ({count})")
        self.found[mutant] = Edit(start, stop, text)


def _flat(text: str) -> str:
    return " ".join(text.split())


def _is_left_out(node: cst.CSTNode) -> bool:
    """Return whether nothing in a node is changed: text, types, errors and the conditions that guard them."""
    if isinstance(node, (cst.Annotation, cst.Import, cst.ImportFrom, cst.Raise, cst.BaseString)):
        return True
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in KEPT:
        return True
    if isinstance(node, cst.If):
        lines = node.body.body
        return node.orelse is None and all(isinstance(x, cst.SimpleStatementLine) and _raises(x) for x in lines)
    # an alias of a type, Float[Array, "*batch T K"]
    return isinstance(node, cst.Assign) and isinstance(node.value, cst.Subscript) and "[Array, " in _code(node.value)


def _raises(line: cst.SimpleStatementLine) -> bool:
    return isinstance(line.body[-1], cst.Raise)


def _code(node: cst.CSTNode) -> str:
    return cst.Module([]).code_for_node(node)
