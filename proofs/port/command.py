"""The command `python -m proofs port`: check a port, print the report, write a test file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from models.errors import UserError
from proofs.port import snippets
from proofs.port.cases import CASES
from proofs.port.checking import check
from proofs.port.frameworks import KNOWN
from proofs.port.loading import load

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
    write_test: TestFile = None,
) -> None:
    """Check a rewrite of a form in another framework, which runs in this process; exit with 1 if it is wrong."""
    try:
        function, source = load(place)
        options: dict[str, Any] = {
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
        }
        where = place.rpartition(":")[0]
        reverse, inside = (load(f"{where}:{name}")[0] if name else None for name in (backward, intermediates))
        if write_test is not None and not write_test.parent.is_dir():
            raise UserError(f"{write_test} cannot be written: there is no folder {write_test.parent}")
        report = check(
            function,
            form,
            **options,
            backward=reverse,
            cases=_names(cases),
            precisions=_names(precisions),
            statements=statements,
            intermediates=inside,
            source=source,
        )
    except UserError as error:
        Console(stderr=True).print(f"proofs: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    if write_test is not None:
        folder = Path(where).resolve().parent if where.endswith(".py") else None
        imported = f"{source}, {backward}" if backward else source
        if folder is not None and folder != write_test.resolve().parent:
            imported = f"\nsys.path.insert(0, {str(folder)!r})\n{imported}"
        written = snippets.test_file(report, imported, {**options, "backward": backward or None})
        write_test.write_text(written, encoding="utf-8")
    Console().print(str(report), markup=False, highlight=False, soft_wrap=True, end="")
    raise typer.Exit(0 if report.right else 1)


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
