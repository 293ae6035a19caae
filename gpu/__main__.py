"""python -m gpu info | check | bench | report: the raw CUDA kernels, with a GPU and without."""

import datetime
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from gpu import bench, build, device, host
from gpu import check as checks

HELP = "The raw CUDA kernels: what works here, whether they are right, and how fast they are."
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
console = Console()
TOOLKIT = "it comes with the CUDA toolkit"
RESULTS = Path(__file__).parent / "results"


@app.command()
def info() -> None:
    """Say what is here and what is missing: driver, device, CuPy, compilers."""
    for what, found in (
        ("device", lambda: ", ".join(device.names())),
        ("CuPy", lambda: device.cupy().__version__),
        ("NVRTC", lambda: build.nvrtc()._name),
        ("nvcc", lambda: _on_path("nvcc", TOOLKIT)),
        ("g++", lambda: _on_path("g++", "apt install g++; it runs kernels on the host, for the tests")),
        ("compute-sanitizer", lambda: _on_path("compute-sanitizer", TOOLKIT)),
    ):
        print(f"{what}: {_said(found)}")


@app.command()
def check(
    alone: Annotated[bool, typer.Option("--alone", hidden=True, help="The kernels, and nothing else.")] = False,
) -> None:
    """Run every kernel and every fused form on the device, and see that they are right and do nothing forbidden."""
    xp = _cupy("check")
    table, right = Table("kernel", "dtype", "largest error", "allowed"), True
    for found in checks.kernels(xp):
        right &= found.right
        table.add_row(found.kernel, found.dtype, found.refused or f"{found.error:.1e}", f"{found.allowed:.1e}")
    console.print(table)
    if not alone:
        for tool, clean in checks.sanitized():
            print(f"{tool}: {'clean' if clean else 'wrong'}")
            right &= clean
        print(f"compute-sanitizer: {_said(lambda: _on_path('compute-sanitizer', TOOLKIT))}")
        right &= checks.forms()
    raise typer.Exit(int(not right))


@app.command("bench")
def bench_(
    repeats: Annotated[int, typer.Option(min=1, help="The median of so many runs.")] = 20,
    record: Annotated[bool, typer.Option("--record", help="Keep the table in gpu/results.")] = False,
) -> None:
    """Time every kernel, forward and backward, beside its peers and its floor on this device."""
    xp = _cupy("bench")
    title = f"{', '.join(device.names())}, {datetime.date.today():%Y-%m-%d}"
    rates = bench.rates(xp, repeats)
    products = f"{rates.operations / 1e9:.1f} TFLOP/s in a product of float32, {rates.rounded / 1e9:.1f} of float16"
    caption = f"{rates.bytes / 1e9:.2f} TB/s to copy, {products}"
    table, found = Table(*bench.HEADER, title=title, caption=caption), []
    for row in bench.rows(xp, rates, repeats):
        found.append(row)
        table.add_row(*bench.cells(row))
    console.print(table)
    if record:
        RESULTS.mkdir(exist_ok=True)
        place = RESULTS / f"{title.lower().replace(', ', '-').replace(' ', '-')}.md"
        place.write_text(bench.markdown(f"{title}: {caption}", found), encoding="utf-8")
        print(place)


@app.command()
def report(record: Annotated[bool, typer.Option("--record", help="Keep it in gpu/report.json.")] = False) -> None:
    """Compile every kernel for every architecture, and say what it needs: registers, shared memory, spills."""
    try:
        if record:
            build.record()
        found = build.recorded() if record else build.report()
    except build.BuildError as error:
        _fail("report", str(error))
    title = "registers, bytes of shared memory (bytes spilled)"
    table = Table("source", "kernel, float32", *build.ARCHITECTURES, title=title)
    for version, kernels in found.items():
        for name, needs in kernels.items():
            cells = (
                f"{n['registers']}, {n['shared']}" + f" ({n['spilled']})" * bool(n["spilled"]) if n else ""
                for n in map(needs.get, build.ARCHITECTURES)
            )
            table.add_row(version, name, *cells)
    console.print(table)


def _cupy(command: str) -> Any:
    try:
        return device.ready()
    except device.MissingError as error:
        _fail(command, str(error))


def _said(found: Callable[[], str]) -> str:
    try:
        return found()
    except (device.MissingError, build.BuildError) as error:
        return f"missing: {error}"


def _on_path(program: str, how: str) -> str:
    found = shutil.which(program)
    if not found:
        raise build.BuildError(f"no {program} on PATH ({how})")
    return found


def _fail(command: str, message: str) -> NoReturn:
    print(f"python -m gpu {command}: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    try:
        app(prog_name="python -m gpu")
    except host.KernelError as error:
        sys.exit(f"python -m gpu: {error}")
