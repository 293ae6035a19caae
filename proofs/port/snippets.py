"""Code in the framework of a port: a counterexample with plain numbers, and a test file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from proofs.port.cases import Inputs
from proofs.port.checking import Checker, Report
from proofs.port.comparing import Divergence
from proofs.port.frameworks import Call, plain
from proofs.port.reference import cotangents, leaves, rebuild, result_names
from proofs.port.signature import CHUNK


def counterexample(checker: Checker, inputs: Inputs, precision: str, divergence: Divergence, source: str = "") -> str:
    """Return code that calls the port on these inputs and prints the result that is wrong, and what is expected."""
    port, library = checker.port, checker.port.framework
    name = getattr(port.function, "__name__", "port")
    lines = [*library.imports, "", source or f"from {port.function.__module__} import {name}", ""]
    converted = _converted(checker, inputs)
    lines += [f"{_variable(argument)} = {library.literal(x, precision)}" for argument, x in converted.items()]
    state = rebuild_text(inputs.state, [_variable(n) for n in converted if n not in inputs.arrays])
    options = {"state": state, CHUNK: str(inputs.chunk)}
    given = [(options.get(argument, _variable(argument)), keyword) for argument, keyword in port.signature.arguments]
    places = [x for x, keyword in given if not keyword]
    names = [f"{keyword}={x}" for x, keyword in given if keyword]
    call = f"{name}({', '.join([*places, *names])})"
    outcome = port.run(inputs, precision, gradients=False)
    result = divergence.result
    if not outcome.values or result in ("", "output"):
        return "\n".join([*lines, f"print({call})  # {divergence.message}"]) + "\n"
    expected = checker.expected(inputs, list(outcome.values), gradients=divergence.result.startswith("gradient"))
    returned = ", ".join(_variable(n) for n in _returned(checker, outcome.values))
    if not result.startswith("gradient"):
        lines += [f"{returned} = {call}", f"print({_shown(checker, result)})"]
        want = checker.port.signature.to_port(port.axes[result], expected.values[result], state=result != "y")
        return "\n".join([*lines, *_expected(want), f"# {divergence}"]) + "\n"
    argument = result.removeprefix("gradient of ").strip()
    if argument not in converted:
        return "\n".join([*lines, f"{returned} = {call}", f"# {divergence}"]) + "\n"
    weights = {
        n: port.signature.to_port(port.axes[n], w, state=n != "y")
        for n, w in cotangents({n: expected.values[n] for n in outcome.values}).items()
    }
    if port.backward is None:
        variables, results = [_variable(x) for x in converted], _results(checker, list(weights))
        code = Call(call, variables, returned, results)
        lines += library.gradient_code(code, _variable(argument), list(weights.values()), precision)
    else:
        reverse = getattr(port.backward, "__name__", "backward")
        cs = [library.literal(w, precision) for w in weights.values()]
        lines[len(library.imports) + 1] += f", {reverse}"
        index = list(converted).index(argument)
        lines.append(f"print({reverse}({', '.join([*places, *cs, *names])})[{index}])")
    axes = port.axes.get(argument) or port.form.axes[argument]
    want = port.signature.to_port(axes, expected.gradients[argument], state=argument.startswith("state"))
    return "\n".join([*lines, *_expected(want), f"# {divergence}"]) + "\n"


def _converted(checker: Checker, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return the arrays of a call with the axes of the port, in its order."""
    port = checker.port
    arrays = {
        name: port.signature.to_port(port.form.axes[name], inputs.arrays[name])
        for name, _ in port.signature.arguments
        if name in inputs.arrays
    }
    if inputs.state is not None:
        for name, x in zip(result_names(port.form)[1:], leaves(inputs.state), strict=True):
            arrays[name] = port.signature.to_port(port.axes[name], x, state=True)
    return arrays


def rebuild_text(state: Any, names: list[str]) -> str:
    """Return the expression of a state of these variables."""

    def text(part: Any) -> str:
        if isinstance(part, tuple):
            return f"({', '.join(map(text, part))}{',' if len(part) == 1 else ''})"
        return str(part)

    return text(rebuild(state, names))


def _variable(name: str) -> str:
    """Return a name that Python accepts: state0 for state[0], memory_W1 for memory.W1."""
    return name.replace("[", "").replace("]", "").replace(".", "_").replace("lambda", "lam")


def _returned(checker: Checker, values: Mapping[str, np.ndarray]) -> list[str]:
    declared = checker.port.signature.returns
    return list(declared) if declared else ["y", "state_after"] if len(values) > 1 else ["y"]


def _shown(checker: Checker, result: str) -> str:
    if result == "y":
        return "y"
    return "state" if checker.port.signature.returns else "state_after"


def _expected(want: np.ndarray) -> list[str]:
    return [f"# expected {plain(np.round(want, 12))}"]


def _results(checker: Checker, names: list[str]) -> list[str]:
    """Return the expression of each result that was returned: y, and the state or each array of it."""
    state = _shown(checker, "state")
    return ["y", *([state] if len(names) == 2 else [f"{state}[{i}]" for i in range(len(names) - 1)])]


TEST = '''"""{port} is the form {form}: values, final state and gradients, in every case and precision."""

{system}import pytest

from proofs.port import check
{source}

CASES = {cases}
PRECISIONS = {precisions}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_{port}(case, precision):
    report = check(
        {port},
        "{form}",
{options}        cases=[case],
        precisions=[precision],
    )
    assert report.right, str(report)
'''
STATEMENTS = """

def test_{port}_in_the_place_of_the_form():
    report = check(
        {port},
        "{form}",
{options}        cases=["T = 1"],
        precisions=PRECISIONS,
        statements=True,
    )
    assert report.right, str(report)
"""


def test_file(report: Report, source: str, options: Mapping[str, Any]) -> str:
    """Return a pytest module that makes the check of a report again, a test for each case and precision."""
    given = {name: value for name, value in options.items() if value is not None and (name, value) != ("decay", "log")}
    lines = [f"        {name}={value if name == 'backward' else _quoted(value)},\n" for name, value in given.items()]
    return (TEST + STATEMENTS if report.statements else TEST).format(
        system="import sys\n\n" if "sys." in source else "",
        port=report.port,
        form=report.form,
        source=source,
        cases=_quoted(report.cases),
        precisions=_quoted(report.precisions),
        options="".join(lines),
    )


def _quoted(value: Any) -> str:
    """Return a literal in JSON's quotes, which are Python's for text, numbers, and lists and dicts of them."""
    return json.dumps(value, ensure_ascii=False)
