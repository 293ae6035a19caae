"""The table is whole: every public function has a row, and every rule of every primitive is reached by one."""

import importlib
import inspect
import pkgutil

import pytest

import minigrad as mg
import minigrad.nn
import minigrad.primitives
from minigrad.engine import Primitive
from tests.oracle import checks
from tests.oracle.domains import CONSTANT, ROWS, TOOLS

# what the standard's extension for linear algebra offers, wherever it is defined
EXTENSION = """
cholesky cross det diagonal eigh eigvalsh inv matmul matrix_norm matrix_power matrix_rank matrix_transpose outer pinv qr
slogdet solve svd svdvals tensordot trace vecdot vector_norm
""".split()


def public(module):
    """Return the names of a module's own functions and layers."""
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value):
            continue
        if module is mg and not (inspect.isclass(value) and value.__module__.startswith("numpy")):
            yield name
        elif (getattr(value, "__module__", None) == module.__name__ or module is mg.linalg and name in EXTENSION) and (
            not inspect.isclass(value) or "__call__" in vars(value)
        ):
            yield f"{module.__name__.rpartition('.')[2]}.{name}"


def names():
    """Return the names of the namespace and of its linalg, fft and nn; the first for a function with several."""
    result = {}
    for module in (mg, mg.linalg, mg.fft, mg.nn):
        for name in public(module):
            result.setdefault(id(inspect.unwrap(getattr(module, name.rpartition(".")[2]))), name)
    return set(result.values())


def primitives():
    """Yield every primitive of every chapter, by module and name."""
    for result in pkgutil.iter_modules(minigrad.primitives.__path__):
        module = importlib.import_module(f"minigrad.primitives.{result.name}")
        for name, value in vars(module).items():
            if isinstance(value, Primitive) and value.__module__ == module.__name__:
                yield f"{result.name}.{name}", value


def test_every_public_function_has_a_row():
    rows = [*ROWS, *CONSTANT, *TOOLS]
    assert len(set(rows)) == len(rows), "a name stands in two lists"
    assert names() - set(rows) == set(), "these have no row in tests/oracle/domains.py"
    assert {n for n in rows if n != "getitem"} - names() == set(), "these rows have no function"


@pytest.fixture(scope="module")
def pulled():
    """Return the rules that the rows' derivatives run: pairs of a primitive and the position of its argument."""
    reached = set()
    originals = [(p, list(p.rules)) for _, p in primitives()]

    def watched(p, i, rule):
        def call(*args):
            reached.add((id(p), i))
            return rule(*args)

        return call

    for p, rules in originals:
        p.rules[:] = [watched(p, i, rule) for i, rule in enumerate(rules)]
    try:
        with checks.quiet():
            for name in ROWS:
                checks.touch(name)
    finally:
        for p, rules in originals:
            p.rules[:] = rules
    return reached


REFUSES = ("factorizations._complete_qr",)  # whose gradient is not determined, and is an error


@pytest.mark.parametrize(("name", "primitive"), [pytest.param(n, p, id=n) for n, p in primitives() if n not in REFUSES])
def test_every_rule_of_every_primitive_is_reached(name, primitive, pulled):
    missing = [i for i in range(primitive.differentiable) if (id(primitive), i) not in pulled]
    assert not missing, f"no row differentiates arguments {missing} of {name}"
