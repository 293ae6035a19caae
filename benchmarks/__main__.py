"""Side-by-side timings: `python -m benchmarks list | run [NAMES] | scale [NAMES] | memory [LENGTHS] | table | plot`."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import argparse
import sys
from pathlib import Path

from benchmarks import memory, plot, report, scaling
from benchmarks.runner import BenchmarkError, measure
from benchmarks.workload import find, workloads
from models.terminal import escape_unencodable


def show() -> None:
    """List the workloads and the implementations of each."""
    for workload in workloads().values():
        print(f"{workload.name}: {workload.title}")
        for implementation in workload.implementations:
            missing = f" (not installed: {', '.join(modules)})" if (modules := implementation.missing()) else ""
            print(f"    {implementation.name}{missing}")


def run(names: list[str], rounds: int, threads: int, folder: Path) -> None:
    """Measure the named workloads, or all of them; keep each record as soon as it is complete.

    Raises BenchmarkError at the end where some could not be measured, with what each of them said.
    """
    errors = []
    for workload in [find(name) for name in names] or list(workloads().values()):
        try:
            record = measure(workload, rounds=rounds, threads=threads, progress=_progress)
        except BenchmarkError as error:
            errors.append(str(error))
            continue
        path = report.save(record, folder)
        _progress(f"{workload.name}: wrote {path}\n")
        print(report.table(record), flush=True)
    if errors:
        raise BenchmarkError("; ".join(errors))


def scale(names: list[str], rounds: int, threads: int, limit: float, folder: Path) -> None:
    """Measure the named curves, or all of them; keep each record as soon as it is complete."""
    for curve in scaling.curves(names):
        record = scaling.measure(curve, rounds=rounds, threads=threads, limit=limit, progress=_progress)
        _progress(f"{curve.workload}: wrote {report.save(record, folder)}\n")
        print(report.lengths(record), flush=True)


def remember(lengths: list[int], threads: int, limit: float, folder: Path) -> None:
    """Measure the memory of softmax attention at these lengths, and keep the record."""
    record = memory.measure(lengths, threads=threads, limit=limit, progress=_progress)
    _progress(f"{record['workload']}: wrote {report.save(record, folder)}\n")
    print(report.memory(record), flush=True)


def _progress(message: str) -> None:
    print(f"\r\x1b[K{message}" if sys.stderr.isatty() else message.rstrip(), end="", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        print(file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    escape_unencodable()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the workloads")
    run_parser = commands.add_parser("run", help="measure workloads side by side; all take about 11 minutes")
    run_parser.add_argument("names", nargs="*", metavar="NAME", help="workloads (default: all)")
    run_parser.add_argument("--rounds", type=_positive, default=5, help="interleaved rounds (default: 5)")
    run_parser.add_argument("--results", type=Path, default=report.RESULTS, help="folder of the records")
    scale_parser = commands.add_parser("scale", help="measure time against sequence length; all take about 6 minutes")
    scale_parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(scaling.CURVES)} (default: all)")
    scale_parser.add_argument("--rounds", type=_positive, default=3, help="interleaved rounds a length (default: 3)")
    scale_parser.add_argument(
        "--limit", type=float, default=scaling.LIMIT, help="seconds that a step may take (default: 5)"
    )
    scale_parser.add_argument("--results", type=Path, default=report.SCALING, help="folder of the records")
    memory_parser = commands.add_parser("memory", help="measure peak memory of softmax attention against length")
    memory_parser.add_argument(
        "lengths", nargs="*", type=_positive, metavar="T", help="tokens, rising (default: 1024 to 8192)"
    )
    memory_parser.add_argument(
        "--limit", type=float, default=memory.LIMIT, help="GiB that a step may take (default: 2)"
    )
    memory_parser.add_argument("--results", type=Path, default=report.MEMORY, help="folder of the record")
    for command in (run_parser, scale_parser, memory_parser):
        cores = os.cpu_count() or 1
        command.add_argument("--threads", type=_positive, default=cores, help="threads for each framework")
    commands.add_parser("table", help="write the chosen rows into README.md and all tables into benchmarks/RESULTS.md")
    commands.add_parser("plot", help="draw all records into docs/speed.png and docs/scaling.png")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            show()
        elif options.command == "run":
            run(options.names, options.rounds, options.threads, options.results)
        elif options.command == "scale":
            scale(options.names, options.rounds, options.threads, options.limit, options.results)
        elif options.command == "memory":
            lengths = options.lengths or list(memory.LENGTHS)
            remember(lengths, options.threads, options.limit, options.results)
        elif options.command == "plot":
            print(f"wrote {plot.draw(report.load())}")
            print(f"wrote {plot.draw_curves(report.load(report.SCALING))}")
        else:
            report.write(report.load(), report.load(report.SCALING), memories=report.load(report.MEMORY))
    except (BenchmarkError, LookupError, OSError, ValueError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; finished workloads are kept", file=sys.stderr)
        return 130
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ready)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
