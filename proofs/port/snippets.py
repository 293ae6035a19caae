"""Code in the framework of a port: a counterexample with plain numbers, and a test file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from proofs.port.cases import Inputs
from proofs.port.checking import Checker, Report
from proofs.port.comparing import Divergence
from proofs.port.frameworks import plain
from proofs.port.running import cotangents, leaves, rebuild, result_names
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
    call = ", ".join(
        (f"{keyword}=" if keyword else "") + options.get(argument, _variable(argument))
        for argument, keyword in port.signature.arguments
    )
    outcome = port.run(inputs, precision, gradients=False)
    result = divergence.result
    if not outcome.values or not result:
        return "\n".join([*lines, f"print({name}({call}))  # {divergence.message}"]) + "\n"
    expected = checker.expected(inputs, list(outcome.values), gradients=divergence.result.startswith("gradient"))
    returned = ", ".join(_variable(n) for n in _returned(checker, outcome.values))
    if not result.startswith("gradient"):
        lines += [f"{returned} = {name}({call})", f"print({_shown(checker, result)})"]
        want = checker.port.signature.to_port(port.axes[result], expected.values[result], state=result != "y")
        return "\n".join([*lines, *_expected(want), f"# {divergence}"]) + "\n"
    argument = result.removeprefix("gradient of ").strip()
    if argument not in converted:
        return "\n".join([*lines, f"{returned} = {name}({call})", f"# {divergence}"]) + "\n"
    weights = {
        n: port.signature.to_port(port.axes[n], w, state=n != "y")
        for n, w in cotangents({n: expected.values[n] for n in outcome.values}).items()
    }
    lines += _gradient(checker, name, call, argument, converted, weights, returned, precision)
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
            return f"({''.join(f'{text(x)}, ' for x in part)})".replace(", )", ",)")
        return str(part)

    return text(rebuild(state, [_Name(name) for name in names]))


class _Name(str):
    """A variable, which is shown without quotes."""


def _variable(name: str) -> str:
    """Return a name that Python accepts: state0 for state[0], memory_W1 for memory.W1."""
    return {"state": "state"}.get(
        name, name.replace("[", "").replace("]", "").replace(".", "_").replace("lambda", "lam")
    )


def _returned(checker: Checker, values: Mapping[str, np.ndarray]) -> list[str]:
    declared = checker.port.signature.returns
    return list(declared) if declared else ["y", "state_after"] if len(values) > 1 else ["y"]


def _shown(checker: Checker, result: str) -> str:
    if result == "y":
        return "y"
    return "state" if checker.port.signature.returns else "state_after"


def _expected(want: np.ndarray) -> list[str]:
    return [f"# expected {plain(np.round(want, 12))}"]


def _gradient(
    checker: Checker,
    name: str,
    call: str,
    argument: str,
    arrays: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    returned: str,
    precision: str,
) -> list[str]:
    """Return the lines that print the gradient of Σ c r for the results r and the cotangents c."""
    library, variable = checker.port.framework, _variable(argument)
    places = (
        ["y"]
        if len(weights) == 1
        else ["y", *(["state_after"] if len(weights) == 2 else [f"state_after[{i}]" for i in range(len(weights) - 1)])]
    )
    if checker.port.signature.returns:
        places[1:] = [x.replace("state_after", "state") for x in places[1:]]
    cs = [library.literal(w, precision) for w in weights.values()]
    if library.name == "torch":
        total = f"[{', '.join(places)}], {variable}, [{', '.join(cs)}]"
        return [
            f"for x in [{', '.join(map(_variable, arrays))}]:",
            "    x.requires_grad_()",
            f"{returned} = {name}({call})",
            f"print(torch.autograd.grad({total}, allow_unused=True)[0])",
        ]
    if library.name == "jax":
        results = f"({', '.join(places)},)"
        return [
            f"def results({variable}):",
            f"    {returned} = {name}({call})",
            f"    return {results}",
            "",
            f"_, pull = jax.vjp(results, {variable})",
            f"print(pull(({', '.join(cs)},))[0])",
        ]
    index = list(arrays).index(argument)
    by_place = [x for x in call.split(", ") if "=" not in x]
    by_name = [x for x in call.split(", ") if "=" in x]
    return [f"print(backward({', '.join([*by_place, *cs, *by_name])})[{index}])  # the port's backward function"]


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


def test_file(report: Report, source: str, options: Mapping[str, Any]) -> str:
    """Return a pytest module that makes the check of a report again, a test for each case and precision."""
    given = {name: value for name, value in options.items() if value is not None and (name, value) != ("decay", "log")}
    lines = [f"        {name}={value if name == 'backward' else _quoted(value)},\n" for name, value in given.items()]
    return TEST.format(
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
