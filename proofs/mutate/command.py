"""python -m proofs mutate: change the code in one place at a time, and see that the statements notice."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from models.errors import UserError
from proofs.checker import PROFILES
from proofs.files import require_place
from proofs.mutate import workers
from proofs.mutate.choosing import GROUPS, group_of, sample, select_files
from proofs.mutate.verdicts import (
    RECORDED,
    Limits,
    Mutant,
    Record,
    Verdict,
    read_record,
    read_survivors,
    tally,
    write_record,
)

CORES = os.cpu_count() or 1

console, stderr = Console(), Console(stderr=True)

Modules = Annotated[
    list[str] | None,
    typer.Argument(help=f"memory.delta_rule, a path, a pattern, or {', '.join(GROUPS)}; all four by default."),
]
Sample = Annotated[int, typer.Option("--sample", min=0, help="Judge this many mutants, drawn from all files; 0: all.")]
Seed = Annotated[int, typer.Option("--seed", help="Which sample is drawn.")]
WithTests = Annotated[bool, typer.Option("--with-tests", help="Run the tests of the module on what survives.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all verdicts to this file as JSON.")]
Resume = Annotated[bool, typer.Option("--resume", help="Keep the verdicts that the file of --json has.")]
AtLeast = Annotated[float, typer.Option("--at-least", min=0, max=1, help="Exit with 1 for a lower score.")]
Seconds = Annotated[float, typer.Option("--seconds", min=1, help="Processor time for the statements on a mutant.")]
ProfileName = Annotated[str, typer.Option("--profile", help=f"How many examples: {', '.join(PROFILES)}.")]
Processes = Annotated[int, typer.Option("--processes", min=1, help="How many mutants to judge at a time.")]


def mutate(
    modules: Modules = None,
    sample_size: Sample = 0,
    seed: Seed = 0,
    with_tests: WithTests = False,
    json: JsonFile = None,
    resume: Resume = False,
    at_least: AtLeast = 0.0,
    seconds: Seconds = 60.0,
    profile: ProfileName = "quick",
    processes: Processes = CORES,
) -> None:
    """Change the code in one place at a time and see that a statement fails; print what survives, and the score.

    The score is the part of the mutants that are killed, of those that survivors.toml does not list as equivalent.
    """
    if missing := [name for name in ("libcst", "mutmut") if find_spec(name) is None]:
        _exit_with_error(f"{missing[0]} is missing, which the extra 'mutate' installs: pip install -e '.[mutate]'")
    if not hasattr(os, "fork"):
        _exit_with_error(f"each mutant is judged in a forked process, which {sys.platform} does not have")
    if profile not in PROFILES:
        _exit_with_error(f"no profile is called {profile!r}; expected one of {', '.join(PROFILES)}")
    if resume and json is None:
        _exit_with_error("--resume needs --json, the file of verdicts to go on with")
    try:
        if json:
            require_place(json)
        counts, chosen = choose(select_files(modules), sample_size, seed)
        survivors = listed()
        before = {v.mutant: v for v in read_record(json).verdicts} if resume and json and json.exists() else {}
        recorded = read_record(RECORDED).verdicts if RECORDED.exists() else []
    except (LookupError, ValueError, UserError) as error:
        _exit_with_error(str(error.args[0]))
    command = shlex.join(["python", "-m", "proofs", *sys.argv[1:]])
    record = Record(command, datetime.now(UTC).isoformat(timespec="seconds"), counts, [])
    verdicts = {mutant: Verdict(mutant) for mutant in chosen if mutant in survivors}  # explained: not judged again
    verdicts |= {mutant: before[mutant] for mutant in chosen if mutant in before}
    todo = [mutant for mutant in chosen if mutant not in verdicts]
    setting = workers.Setting(Limits(mutant=seconds, profile=profile), recorded, with_tests)
    interrupted = False
    try:
        for verdict in _judged(todo, setting, processes):
            verdicts[verdict.mutant] = verdict
            if json:  # each time: whatever ends this, what is done is kept
                write_record(json, replace(record, verdicts=list({**before, **verdicts}.values())))
    except KeyboardInterrupt:
        interrupted = True
        stderr.print(f"interrupted after {len(verdicts)} of {len(chosen)} mutants")
    score = _report(list(verdicts.values()), survivors, with_tests=with_tests)
    raise typer.Exit(130 if interrupted else 1 if score < at_least else 0)


def choose(files: Iterable[str], size: int, seed: int) -> tuple[dict[str, int], list[Mutant]]:
    """Return how many mutants the files have, by groups, and all of them or a sample."""
    from proofs.mutate.mutants import mutants

    every = [mutant for file in files for mutant in mutants(file)]
    return dict(Counter(group_of(mutant.file) for mutant in every)), sample(every, size, seed) if size else every


def listed() -> dict[Mutant, tuple[str, str]]:
    """Return the explained survivors. Raises LookupError for one that is no mutant of its file any more."""
    from proofs.mutate.mutants import mutants

    survivors = read_survivors()
    for mutant in survivors:
        if not (select_files([mutant.file]) and mutant in mutants(mutant.file)):
            raise LookupError(f"survivors.toml: {mutant}: the file has no such mutant in the line {mutant.line!r}")
    return survivors


def _judged(mutants: list[Mutant], setting: workers.Setting, processes: int) -> Iterator[Verdict]:
    """Yield verdicts as they come, above a progress bar."""
    from proofs.mutate.mutants import changed_source

    os.environ |= dict.fromkeys(workers.ONE_THREAD, "1")  # of the workers: a process that forks has no threads
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    pool = ProcessPoolExecutor(
        min(processes, len(mutants) or 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=workers.initialize,
        initargs=(os.getpid(), setting),
    )
    try:
        with Progress(*columns, console=stderr, transient=True) as bar:
            task = bar.add_task("mutants", total=len(mutants))
            for verdict in pool.map(workers.judge_one, mutants, map(changed_source, mutants)):
                if not verdict.by:
                    console.print(f"survives: {verdict.mutant}", markup=False, highlight=False, soft_wrap=True)
                bar.advance(task)
                yield verdict
    finally:
        pool.shutdown(cancel_futures=True)


def _report(verdicts: list[Verdict], survivors: Mapping[Mutant, tuple[str, str]], *, with_tests: bool) -> float:
    """Print a line for each file, for each group and for all, and return the score of all."""
    files = sorted({verdict.mutant.file for verdict in verdicts})
    for names in (lambda v: v.mutant.file, lambda v: group_of(v.mutant.file), lambda v: "all"):
        for name in dict.fromkeys(
            names(verdict) for verdict in sorted(verdicts, key=lambda v: files.index(v.mutant.file))
        ):
            count = tally((verdict for verdict in verdicts if names(verdict) == name), survivors)
            by_tests = f" by statements, {count.killed_by_tests} by tests" if count.killed_by_tests else ""
            equivalent = f", {count.equivalent} equivalent" if count.equivalent else ""
            line = f"{name}: {count.killed} of {count.judged} killed{by_tests}{equivalent}"
            console.print(f"{line}: {count.score(with_tests=with_tests):.1%}", highlight=False, soft_wrap=True)
    return tally(verdicts, survivors).score(with_tests=with_tests)


def _exit_with_error(message: str) -> NoReturn:
    stderr.print(f"proofs: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)
