"""python -m proofs list | check | talks | port | vectors | mutate: statements, claims, ports, vectors, mutants."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":  # Ctrl-C during the imports that follow ends the process, without a traceback
    _ready = signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

if missing := [name for name in ("hypothesis", "rich", "typer") if find_spec(name) is None]:
    sys.exit(f"proofs: {missing[0]} is missing, which the extra 'check' installs: pip install -e '.[check]'")

from minigrad import get_num_threads

if __name__ == "__main__":  # before the imports that follow, which take four times as long
    try:
        get_num_threads()  # which reads the environment
    except ValueError as error:
        print(f"proofs: {error}", file=sys.stderr)
        sys.exit(2)

import typer
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models import tables
from models.errors import UserError
from models.references import references
from models.terminal import escape_unencodable
from proofs.checker import PROFILES, Result, report, systems_of, workers
from proofs.checker.statements import Statement, select
from proofs.files import require_place
from proofs.mutate.command import mutate
from proofs.port.command import port
from proofs.talks import TALKS, VERDICTS, evidence, select_claims, summary
from proofs.vectors.command import vectors

CORES = min(os.cpu_count() or 1, 61)  # as many processes as Windows lets a pool wait for

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
console, stderr = Console(), Console(stderr=True)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        help="A statement, its instance or chapter, a mechanism or form as `python -m models list` spells it "
        "(memory.delta_rule, memory.delta_rule.chunkwise: all statements that call it), the path of a file or folder, "
        "or a pattern of these with * and ?; all by default."
    ),
]
ProfileName = Annotated[
    str,
    typer.Option(
        "--profile",
        help="quick (a minute on two cores: few examples, of values exactly and in float64, of gradients in float64; "
        "no float32, no exact and no second derivatives, neither PyTorch nor JAX), short (what pytest runs), default "
        "(also examples of up to 64 tokens), or deep (an hour).",
    ),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all results to this file as JSON.")]
ListFile = Annotated[Path | None, typer.Option("--json", help="Write them to this file as JSON, and print nothing.")]
TalkNames = Annotated[
    list[str] | None, typer.Argument(help=f"A talk ({', '.join(TALKS)}) or the number of a claim; all by default.")
]
VerdictName = Annotated[str, typer.Option("--verdict", help=f"Only one verdict: {', '.join(VERDICTS)}.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="How many statements to check at a time.")]
FailFast = Annotated[bool, typer.Option("--fail-fast", help="Stop at the first statement that fails.")]
JunitFile = Annotated[Path | None, typer.Option("--junit", help="Write all results to this file as JUnit XML.")]


@app.command("list")
def list_statements(names: Names = None, json: ListFile = None) -> None:
    """List the statements, chapter by chapter."""
    if json:
        _require_place(json)
        report.write_statements(json, _select(names))
        return
    chapter = ""
    for statement in _select(names):
        if statement.chapter != chapter:
            chapter = statement.chapter
            console.print(f"\n[bold]{chapter}[/]")
        tables.write(console, f"{statement.relation} {statement.name.partition('.')[2]}", indent=2, style="bold")
        tables.write(console, f"{statement.sentence}.", indent=4)
        systems = ", ".join(systems_of(statement))
        report.write_source(console, statement.citations, f". In {systems}.")
        if statement.instead:
            tables.write(console, f"What holds instead: {statement.instead}.", indent=4, style="dim")


@app.command()
def check(
    names: Names = None,
    profile: ProfileName = "default",
    json: JsonFile = None,
    junit: JunitFile = None,
    processes: Processes = CORES,
    fail_fast: FailFast = False,
) -> None:
    """Try to refute the statements in every number system; exit with 1 if one fails.

    A failure names the result or gradient that differs, with its index, and which forms are the left and the right
    side; it ends with a program that evaluates the counterexample again.
    """
    if profile not in PROFILES:
        _exit_with_error(f"no profile is called {profile!r}; expected one of {', '.join(PROFILES)}")
    for path in (json, junit):
        if path:
            _require_place(path)
    statements, start = _select(names), time.perf_counter()
    results: list[Result] = []
    try:
        _run(statements, profile, processes, results, fail_fast=fail_fast)
    except KeyboardInterrupt:
        stderr.print(f"interrupted after {len(results)} of {len(statements)} statements")
        raise typer.Exit(130) from None
    finally:
        if json:
            report.write_json(json, results)
        if junit:
            report.write_junit(junit, results)
    counts = report.summary(results)
    seconds = time.perf_counter() - start
    console.print(f"{counts['hold']} hold, {counts['failed']} fail; {counts['examples']} examples, {seconds:.0f} s")
    console.print(f"{counts['proven']} are proven over a prime field, the others checked on examples")
    if left_out := [name for name in PROFILES[profile].without if any(name in systems_of(s) for s in statements)]:
        console.print(f"the profile {profile} leaves out: {', '.join(left_out)}")
    if len(results) < len(statements):
        console.print(f"stopped at the first failure: {len(statements) - len(results)} were not checked")
    raise typer.Exit(1 if counts["failed"] else 0)


@app.command()
def talks(
    names: TalkNames = None,
    verdict: VerdictName = "",
    missing: Annotated[bool, typer.Option("--missing", help="Only what is not shown yet.")] = False,
    json: ListFile = None,
) -> None:
    """List the claims of the five talks, each with its verdict, the precise statement, and what shows it."""
    try:
        selected = select_claims(names, verdict, missing=missing)
    except (LookupError, ValueError) as error:
        _exit_with_error(error.args[0])
    if json:
        _require_place(json)
        report.write_claims(json, selected)
        return
    talk = ""
    for claim in selected:
        if claim.talk != talk:
            talk = claim.talk
            work = references()[talk]
            console.print(f"\n[bold]{work.label}[/] ({talk})")
            tables.write(console, " ".join([work.title, work.url]), indent=2)
        tables.write(console, f"{claim.number}. {claim.place}: {claim.said}", indent=2, style="bold")
        tables.write(console, f"{' '.join([claim.verdict, *claim.condition.split()])}. {claim.precise}", indent=4)
        for line in evidence(claim):
            tables.write(console, line, indent=4, style="dim" if claim.shown else "")
    console.print(f"\n{summary(selected)}", highlight=False)


app.command()(port)
app.command()(vectors)
app.command()(mutate)


def _run(statements: list[Statement], profile: str, processes: int, results: list[Result], *, fail_fast: bool) -> None:
    """Check statements in parallel processes; print the results in order, above a progress bar.

    With `fail_fast` those that have not begun at the first failure are left out.
    """
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    task = bar.add_task(profile, total=len(statements))
    pool = ProcessPoolExecutor(processes, initializer=workers.initialize, initargs=(os.getpid(),))
    try:
        with Live(bar, console=console, transient=True):
            for result in pool.map(workers.check_one, [s.name for s in statements], [profile] * len(statements)):
                results.append(result)
                report.show(console, result)
                if result.verdict == "failed":
                    console.print(report.failures(result), markup=False, highlight=False, soft_wrap=True)
                    if fail_fast:
                        break
                bar.advance(task)
    finally:
        pool.shutdown(cancel_futures=True)


def _select(names: list[str] | None) -> list[Statement]:
    try:
        return select(names)
    except LookupError as error:
        _exit_with_error(error.args[0])


def _require_place(path: Path) -> None:
    try:
        require_place(path)
    except UserError as error:
        _exit_with_error(str(error))


def _exit_with_error(message: str) -> NoReturn:
    stderr.print(f"proofs: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


if __name__ == "__main__":
    escape_unencodable()
    signal.signal(signal.SIGINT, _ready)
    app()
