"""python -m gpu info | check | bench | report: the raw CUDA kernels, with a GPU and without."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import datetime
import functools
import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NoReturn

if missing := [name for name in ("rich", "typer") if find_spec(name) is None]:
    sys.exit(f"gpu: {missing[0]} is missing, which the extra 'cli' installs: pip install -e '.[cli]'")

import typer
from rich.console import Console
from rich.table import Table

from gpu import bench, build, device, host
from gpu import check as checks

HELP = "The raw CUDA kernels: what works here, whether they are right, and how fast they are."
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
console = Console()
PEERS = {
    "torch": "torch",
    "fla-core": "flash-linear-attention",
    "mamba-ssm": "mamba-ssm",
}  # package, and what brings it
TOOLKIT = "it comes with the CUDA toolkit"
COMPILER = "apt install g++; it runs kernels on the host, to compare with"


@app.command()
def info() -> None:
    """Say what is here and what is missing: driver, device, CuPy, compilers, and whom to compare with."""
    rows: list[tuple[str, Callable[[], str]]] = [
        ("driver", device.driver),
        ("device", lambda: ", ".join(device.names())),
        ("CuPy", lambda: device.cupy().__version__),
        ("NVRTC", lambda: build.nvrtc()._name),
        ("nvcc", lambda: _on_path("nvcc", TOOLKIT)),
        ("g++", lambda: _on_path("g++", COMPILER)),
        ("compute-sanitizer", lambda: _on_path("compute-sanitizer", TOOLKIT)),
        *((name, functools.partial(_version, name, how)) for name, how in PEERS.items()),
    ]
    for what, found in rows:
        print(f"{what}: {_said(found)}")


@app.command()
def check(
    parts: Annotated[list[str] | None, typer.Argument(help="kernels, sanitizer or forms; all by default.")] = None,
    apart: Annotated[bool, typer.Option("--apart", hidden=True, help="Arrays in memory of their own.")] = False,
) -> None:
    """Run every kernel and every fused form on the device, and see that they are right and do nothing forbidden.

    By estimate, when nothing is compiled yet, the kernels and the forms take 3 minutes each, compute-sanitizer 4.
    """
    parts = _known("check", parts, checks.PARTS)
    xp, right = _cupy("check"), True
    try:
        _on_path("g++", COMPILER)
    except build.BuildError as error:
        _fail("check", str(error))
    if apart:
        xp.cuda.set_allocator(None)  # without a pool, a tool sees where each array begins and ends
    for found in checks.kernels(xp) if "kernels" in parts else ():
        right &= found.right
        print(found, flush=True)
    if "sanitizer" in parts:
        for tool, clean in checks.sanitized():
            print(f"{tool}: {'clean' if clean else 'WRONG'}", flush=True)
            right &= clean
        print(f"compute-sanitizer: {_said(lambda: _on_path('compute-sanitizer', TOOLKIT))}", flush=True)
    if "forms" in parts:
        right &= checks.forms()
    raise typer.Exit(int(not right))


@app.command("bench")
def bench_(
    kernels: Annotated[list[str] | None, typer.Argument(help="scan, softmax and so on; all by default.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="The median of so many runs.")] = 20,
    record: Annotated[bool, typer.Option("--record", help="Keep the table in gpu/results, row by row.")] = False,
) -> None:
    """Time every kernel, forward and both ways, beside its peers and its floor on this device, and against its goal.

    A goal that is missed is said to be, and is no failure. Where fla is installed, Triton tries out several versions of
    its kernels, which takes minutes for each: one kernel at a time then, and a table that is kept takes all of them.
    """
    kernels = _known("bench", kernels, [name for name in bench.CASES if "," not in name])
    xp = _cupy("bench")
    rates = bench.rates(xp, repeats)
    title = f"{device.names()[0]}, {datetime.date.today():%Y-%m-%d}"
    products = f"{rates.operations / 1e9:.1f} TFLOP/s in a product of float32, {rates.rounded / 1e9:.1f} of float16"
    heading = f"{title}: {rates.bytes / 1e9:.2f} TB/s to copy, {products}; medians of {repeats} (quartiles)"
    place = _results() / f"{title.lower().replace(', ', '-').replace(' ', '-')}.md"
    before, found = place.read_text(encoding="utf-8") if record and place.exists() else "", []
    print(heading, bench.line(bench.HEADER), bench.line(["---"] * len(bench.HEADER)), sep="\n", flush=True)
    for row in bench.rows(xp, rates, repeats, kernels=kernels):
        print(bench.line(row.cells()), flush=True)
        found.append(row)
        if record:
            place.parent.mkdir(exist_ok=True)
            place.write_text(bench.markdown(heading, found, before), encoding="utf-8")
    if record:
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


def _known(command: str, given: list[str] | None, names: Iterable[str]) -> list[str]:
    """What was asked for, or all there is."""
    for name in given or ():
        if name not in names:
            _fail(command, f"expected {', '.join(names)} or none of them, got {name!r}")
    return list(given or names)


def _results() -> Path:
    """In the repository; where it is not, because it was installed from there, in the folder where one stands."""
    home = Path(__file__).parent
    return (home if (home.parent / "pyproject.toml").exists() else Path()) / "results"


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


def _version(name: str, how: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise device.MissingError(f"no package {name} (pip install {how})") from None


def _on_path(program: str, how: str) -> str:
    found = shutil.which(program)
    if not found:
        raise build.BuildError(f"no {program} on PATH ({how})")
    return found


def _fail(command: str, message: str) -> NoReturn:
    print(f"python -m gpu {command}: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ready)
    try:
        app(prog_name="python -m gpu")
    except host.KernelError as error:
        sys.exit(f"python -m gpu: {error}")
