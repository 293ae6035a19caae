"""The command `python -m proofs port`: check a port, print the report, write it as JSON, write a test file."""

from __future__ import annotations

import json as json_module
import secrets
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from models.errors import UserError
from proofs.files import require_place, write
from proofs.port.cases import CASES
from proofs.port.process import answer_of_process
from proofs.port.recognition import KNOWN
from proofs.port.serialize import not_run
from proofs.port.worker import USAGE, Answer, Request, answer

Option = typer.Option

BACKWARD = (
    "A function of the same file for the gradients: called as the port, with the cotangents of y and of each array of "
    "the state it returns after the positional arguments; returns a gradient for each array, of the initial state last."
)

Place = Annotated[str, typer.Argument(metavar="FILE.py:FUNCTION", help="The port; package.module:FUNCTION will do.")]
FormName = Annotated[
    str, Option("--as", help="The form, as in memory.delta_rule.chunkwise, or a mechanism's plainest.")
]
Framework = Annotated[str, Option(help=f"{', '.join(KNOWN)}, or a module with from_dlpack; by default as imported.")]
Layout = Annotated[str, Option(help="The axes of arrays of tokens, as in 'b t h k'; by default the form's own.")]
Arguments = Annotated[str, Option(help="The form's arguments in the port's order, as in q,k,v,g,beta; x=q by name.")]
Scale = Annotated[str, Option(help="What the port multiplies q by: a number or '1/sqrt(K)'; by default as the form.")]
State = Annotated[str, Option(help="The last axes of the state, as in 'v k'.")]
Decay = Annotated[str, Option(help="log, or factor where the port takes the decays themselves.")]
Returns = Annotated[str, Option(help="The port's results in its order, as in state,y; _ for what is left out.")]
Variant = Annotated[str, Option(help="Which of the shapes that the form allows, as in 'log_decay T K'.")]
Chunk = Annotated[int, Option(help="The port's size of chunks or mini-batches, where it takes none.")]
Sizes = Annotated[str, Option(help="Sizes of axes, as in K=16,V=16.")]
Cases = Annotated[str, Option(help=f"Only some cases: {', '.join(CASES)}.")]
Precisions = Annotated[str, Option(help="Only some of float64,float32,bfloat16.")]
Backward = Annotated[str, Option(help=BACKWARD)]
Statements = Annotated[
    bool | None,
    Option(help="Check the statements with the port in the form's place; by default where all cases are run."),
]
Intermediates = Annotated[
    str, Option(help="A function of the same file that returns a dict of A, U, S, … of each chunk.")
]
TestFile = Annotated[Path | None, Option("--write-test", help="Write a pytest file that makes the same check.")]


Json = Annotated[
    str,
    Option(help="Write the report to this file as JSON, or by - to standard output (see proofs/port/serialize.py)."),
]
Adversarial = Annotated[
    bool,
    Option("--adversarial", help="Look for what passes the cases and is wrong elsewhere, on new numbers each time."),
]
Seed = Annotated[int | None, Option(min=0, help="The seed of an adversarial check, which it prints.")]
TimeLimit = Annotated[float, Option(min=0, help="Seconds that the import or a run of the port may take; 0 for none.")]
MemoryLimit = Annotated[float, Option(min=0, help="GiB that its process may allocate, on Linux; 0 for no limit.")]
InProcess = Annotated[bool, Option("--in-process", help="Run the port in this process, without limits: for debuggers.")]


def port(
    place: Place,
    form: FormName,
    framework: Framework = "",
    layout: Layout = "",
    arguments: Arguments = "",
    scale: Scale = "",
    state: State = "",
    decay: Decay = "log",
    returns: Returns = "",
    variant: Variant = "",
    chunk: Chunk = 0,
    sizes: Sizes = "",
    cases: Cases = "",
    precisions: Precisions = "",
    backward: Backward = "",
    statements: Statements = None,
    intermediates: Intermediates = "",
    adversarial: Adversarial = False,
    seed: Seed = None,
    write_test: TestFile = None,
    json: Json = "",
    time_limit: TimeLimit = 120.0,
    memory_limit: MemoryLimit = 16.0,
    in_process: InProcess = False,
) -> None:
    """Check a rewrite of a form in another framework.

    The code of FILE.py runs in a process of its own, with all rights of yours: it is no sandbox.

    Exit codes: 0 right, 1 wrong, 2 bad input, 3 nothing could be checked.
    """
    if seed is not None and not adversarial:
        _exit("seed: only an adversarial check has one, by --adversarial")
    try:
        request = Request(
            place,
            form,
            {
                "framework": framework or None,
                "layout": layout or None,
                "arguments": arguments or None,
                "scale": scale or None,
                "state": state or None,
                "decay": decay,
                "returns": returns or None,
                "variant": variant or None,
                "chunk": chunk or None,
                "sizes": _sizes(sizes),
                "cases": _names(cases),
                "precisions": _names(precisions),
                "statements": statements,
                "adversarial": adversarial,
                "seed": secrets.randbelow(2**32) if adversarial and seed is None else seed,
            },
            backward,
            intermediates,
            str(write_test or ""),
            time_limit,
            memory_limit,
        )
    except UserError as error:
        _exit(str(error))
    try:
        for path in (write_test, Path(json) if json not in ("", "-") else None):
            if path is not None:
                require_place(path)
        given = answer(request) if in_process else answer_of_process(request)
    except UserError as error:
        _exit(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if write_test is not None and given.test:
        write(write_test, given.test)
    _print(given, json)
    raise typer.Exit(given.code)


def _print(given: Answer, json: str) -> None:
    """Print an answer, and write it as JSON."""
    text = json_module.dumps(given.report or not_run(given.error), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if json not in ("", "-"):
        write(Path(json), text)
    if given.error:
        Console(stderr=True).print(f"proofs: {given.error}", markup=False, highlight=False, soft_wrap=True)
    if json == "-" or not given.error:
        shown = text if json == "-" else given.text
        Console().print(shown, markup=False, highlight=False, soft_wrap=True, end="")


def _exit(error: str) -> NoReturn:
    _print(Answer(USAGE, error), "")
    raise typer.Exit(USAGE)


def _names(text: str) -> list[str] | None:
    return [name.strip() for name in text.split(",")] if text else None


def _sizes(text: str) -> dict[str, int] | None:
    sizes = {}
    for item in text.split(",") if text else []:
        axis, _, size = item.partition("=")
        if not size.strip().isdigit():
            raise UserError(f"sizes: expected as in K=16,V=16, got '{text}'")
        sizes[axis.strip()] = int(size)
    return sizes or None
