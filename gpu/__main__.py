"""python -m gpu info | check | bench | report: the raw CUDA kernels, with a GPU and without."""

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import datetime
import functools
import importlib.metadata
import io
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

from gpu import bench, build, device, emulator
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
    """Show what is installed and what is missing: driver, device, CuPy, compilers, peers."""
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
    for name, find in rows:
        print(f"{name}: {_found_or_missing(find)}")


@app.command()
def check(
    parts: Annotated[list[str] | None, typer.Argument(help="kernels, sanitizer or forms; all by default.")] = None,
    apart: Annotated[bool, typer.Option("--apart", hidden=True, help="Allocate every array by itself.")] = False,
) -> None:
    """Check every kernel and every fused form on the device, and run the kernels under compute-sanitizer.

    Estimated from a cold cache: 3 minutes for the kernels, 4 for compute-sanitizer, 3 for the forms.
    """
    parts = _selected("check", parts, checks.PARTS)
    xp, passed = _cupy("check"), True
    try:
        _on_path("g++", COMPILER)
    except build.BuildError as error:
        _fail("check", str(error))
    if apart:
        xp.cuda.set_allocator(None)  # without a memory pool, compute-sanitizer knows the bounds of each array
    for result in checks.kernels(xp) if "kernels" in parts else ():
        passed &= result.passed
        print(result, flush=True)
    if "sanitizer" in parts:
        for tool, clean in checks.sanitized():
            print(f"{tool}: {'clean' if clean else 'WRONG'}", flush=True)
            passed &= clean
        print(f"compute-sanitizer: {_found_or_missing(lambda: _on_path('compute-sanitizer', TOOLKIT))}", flush=True)
    if "forms" in parts:
        passed &= checks.forms()
    raise typer.Exit(int(not passed))


@app.command("bench")
def bench_(
    kernels: Annotated[list[str] | None, typer.Argument(help="Names such as scan or softmax; all by default.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of runs of which the median is taken.")] = 20,
    record: Annotated[bool, typer.Option("--record", help="Write the table to gpu/results, row by row.")] = False,
) -> None:
    """Time every kernel, forward and forward + backward, beside its peer and its lower bound on this device.

    A missed goal is reported and is no failure. Where fla is installed, Triton autotunes its kernels, which takes
    minutes each: run one kernel at a time and use --record, which merges the rows into one table.
    """
    kernels = _selected("bench", kernels, [name for name in bench.CASES if "," not in name])
    xp = _cupy("bench")
    rates = bench.rates(xp, repeats)
    title = f"{device.names()[0]}, {datetime.date.today():%Y-%m-%d}"
    products = f"{rates.flops / 1e9:.1f} TFLOP/s float32, {rates.tensor_core_flops / 1e9:.1f} TFLOP/s float16"
    heading = f"{title}: {rates.bytes / 1e9:.2f} TB/s copy, {products}; medians of {repeats} (quartiles)"
    place = _results() / f"{title.lower().replace(', ', '-').replace(' ', '-')}.md"
    earlier, rows = place.read_text(encoding="utf-8") if record and place.exists() else "", []
    print(heading, bench.line(bench.HEADER), bench.line(["---"] * len(bench.HEADER)), sep="\n", flush=True)
    for row in bench.rows(xp, rates, repeats, kernels=kernels):
        print(bench.line(row.cells()), flush=True)
        rows.append(row)
        if record:
            place.parent.mkdir(exist_ok=True)
            place.write_text(bench.markdown(heading, rows, earlier), encoding="utf-8")
    if record:
        print(place)


@app.command()
def report(record: Annotated[bool, typer.Option("--record", help="Write it to gpu/report.json.")] = False) -> None:
    """Compile every kernel for every architecture and show its registers, shared memory and spills."""
    try:
        if record:
            build.record()
        resources = build.recorded() if record else build.report()
    except build.BuildError as error:
        _fail("report", str(error))
    title = "registers, bytes of shared memory (bytes spilled)"
    table = Table("source", "kernel, float32", *build.ARCHITECTURES, title=title)
    for version, kernels in resources.items():
        for name, needs in kernels.items():
            cells = (
                f"{n['registers']}, {n['shared']}" + f" ({n['spilled']})" * bool(n["spilled"]) if n else ""
                for n in map(needs.get, build.ARCHITECTURES)
            )
            table.add_row(version, name, *cells)
    console.print(table)


def _selected(command: str, given: list[str] | None, names: Iterable[str]) -> list[str]:
    """Return the names given, or all."""
    for name in given or ():
        if name not in names:
            _fail(command, f"expected {', '.join(names)} or none of them, got {name!r}")
    return list(given or names)


def _results() -> Path:
    """Return the folder of recorded tables: in the repository, or below the working directory where it is installed."""
    home = Path(__file__).parent
    return (home if (home.parent / "pyproject.toml").exists() else Path()) / "results"


def _cupy(command: str) -> Any:
    try:
        return device.ready()
    except device.MissingError as error:
        _fail(command, str(error))


def _found_or_missing(find: Callable[[], str]) -> str:
    try:
        return find()
    except (device.MissingError, build.BuildError) as error:
        return f"missing: {error}"


def _version(name: str, how: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        raise device.MissingError(f"no package {name} (pip install {how})") from None


def _on_path(program: str, how: str) -> str:
    path = shutil.which(program)
    if not path:
        raise build.BuildError(f"no {program} on PATH ({how})")
    return path


def _fail(command: str, message: str) -> NoReturn:
    print(f"python -m gpu {command}: {' '.join(message.split())}", file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ready)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack ≥ and –
    try:
        app(prog_name="python -m gpu")
    except emulator.KernelError as error:
        sys.exit(f"python -m gpu: {error}")
