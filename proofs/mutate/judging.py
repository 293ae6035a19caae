"""Judge mutants, each in a forked process: check statements, the likeliest first, until one fails."""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import CodeType
from typing import Any

from proofs.checker.run import PROFILES, Search, systems_of
from proofs.checker.statements import Statement
from proofs.checker.systems import SYSTEMS, Comparison
from proofs.identities import STATEMENTS
from proofs.mutate.placing import ROOT, Loaded, import_anew, module_name
from proofs.mutate.relating import importers, related
from proofs.mutate.verdicts import Kill, Limits, Mutant, Verdict

# Number systems as they are tried: those that cost least and notice most come first.
ORDER: tuple[str, ...] = ("modular", "counted", "exact gradient", "float64", "gradient", "fractions")
ORDER += ("exact second gradient", "second gradient", "float32")
FIRST = 4  # statements that killed before and are tried first
MEMORY = 16 << 30  # bytes of address space that a mutant may take

Check = tuple[str, str]  # the name of a statement, a number system


@dataclass
class Outcome:
    """The report of a mutant's process: the seconds of each check that passed, then the check that failed."""

    passed: list[float] = field(default_factory=list)
    by: str = ""
    failure: str = ""


class Judge:
    """The statements that judge, and what is known of them: which functions they run, and what they have killed."""

    def __init__(self, limits: Limits, kills: list[Kill], ran_at_import: Container[CodeType]) -> None:
        """Take limits, the kills of an earlier run, and the functions that ran when the project was imported."""
        self.limits, self.kills, self.ran_at_import = limits, Counter(kills), ran_at_import
        self.loaded, self.modules = Loaded(ran_at_import), len(sys.modules)
        self.functions_run: dict[str, set[tuple[str, str]]] = {}

    def judge(self, mutant: Mutant, source: str) -> Verdict:
        """Check statements that run what the mutant changes, until one fails, none is left, or the time is over."""
        start, checked, passed = time.process_time(), 0.0, 0
        for names in self.batches(mutant, start):
            left = self.limits.mutant - (time.process_time() - start) - checked
            if left <= 0:
                break
            outcome = self.in_process(mutant, source, checks_of(names), left)
            checked, passed = checked + sum(outcome.passed), passed + len(outcome.passed)
            if outcome.by:
                failure = outcome.failure.partition("\n")[0][:200]
                verdict = Verdict(mutant, outcome.by, failure, passed, round(checked, 1))
                self.kills[verdict.kill] += 1
                return verdict
        return Verdict(mutant, "", "", passed, round(checked, 1))

    def batches(self, mutant: Mutant, start: float) -> Iterator[list[str]]:
        """Yield names of statements: those that killed in this function or file, the nearest, and all that run it."""
        kills = [kill for kill, _ in self.kills.most_common() if kill.file == mutant.file]
        kills.sort(key=lambda kill: kill.function != mutant.function)
        tried = [name for name in dict.fromkeys(kill.statement for kill in kills) if name in STATEMENTS][:FIRST]
        if tried:
            yield tried
        nearest = (name for name in related(mutant, STATEMENTS) if name not in tried)
        in_time = itertools.takewhile(lambda _: time.process_time() - start < self.limits.mutant, nearest)
        rest = (name for name in in_time if self.runs(name, mutant))
        for size in (1, 2, 4, *itertools.repeat(8, len(STATEMENTS))):  # soon a few, for each is found by running it
            if not (batch := list(itertools.islice(rest, size))):
                return
            yield batch

    def runs(self, name: str, mutant: Mutant) -> bool:
        """Return whether a statement runs the changed function, or for one that Python does not call, code near it."""
        if name not in self.functions_run:
            self.functions_run[name] = functions_run(STATEMENTS[name])
        functions = self.functions_run[name]
        if mutant.function in called_by_python(mutant.file):
            return (mutant.file, mutant.function) in functions
        changed = module_name(mutant.file)
        return not {module_name(file) for file, _ in functions}.isdisjoint({changed, *importers(changed)})

    def in_process(self, mutant: Mutant, source: str, checks: list[Check], seconds: float) -> Outcome:
        """Check statements with the mutant in place, in a process of its own that may crash or never end."""
        if len(sys.modules) > self.modules:
            self.loaded, self.modules = Loaded(self.ran_at_import), len(sys.modules)
        context, outcome, current = multiprocessing.get_context("fork"), Outcome(), "import"
        receive, send = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(mutant.file).name)
            path.write_text(source, encoding="utf-8")
            arguments = send, mutant, str(path), checks, self.limits, seconds, self.loaded
            process = context.Process(target=_run, args=arguments, daemon=True)
            process.start()
            send.close()
            try:
                while receive.poll(20 * self.limits.check):
                    current, passed, failure = receive.recv()
                    if failure:
                        outcome.by, outcome.failure = current, failure
                    elif passed is not None:
                        outcome.passed.append(passed)
                process.kill()
            except EOFError:  # it has ended
                pass
            process.join()
        if not outcome.by and process.exitcode:
            reasons = {
                -signal.SIGPROF: f"took more than {self.limits.check:g} s of CPU time",
                -signal.SIGKILL: f"was killed: out of memory, or silent for {20 * self.limits.check:g} s",
            }
            outcome.by = current
            outcome.failure = reasons.get(process.exitcode, f"the process ended with {process.exitcode}")
        return outcome


def called_by_python(file: str) -> set[str]:
    """Return the qualified names of the functions of a file that Numba does not compile."""
    module = sys.modules.get(module_name(file))
    own = [x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__] if module else []
    functions = {x.__qualname__ for x in own if callable(x) and not hasattr(x, "py_func") and hasattr(x, "__code__")}
    methods = {
        f"{x.__qualname__}.{name}" for x in own if isinstance(x, type) for name, f in vars(x).items() if callable(f)
    }
    return functions | methods


def functions_run(statement: Statement) -> set[tuple[str, str]]:
    """Return (file, qualified name) of the project's functions that a statement runs, its gradient too."""
    codes: set[CodeType] = set()
    sys.setprofile(lambda frame, event, _: codes.add(frame.f_code) if event == "call" else None)
    try:
        if statement.kind == "grows":
            statement(length=statement.lengths[0])
        else:
            names = systems_of(statement)
            values = next((name for name in ("float64", "fractions") if name in names), names[0])
            for name in dict.fromkeys([values, *({"gradient"} & set(names))]):
                _evaluate(statement, name)
    except Exception:  # what it ran until then counts
        pass
    finally:
        sys.setprofile(None)
    root = f"{ROOT}/"
    return {
        (code.co_filename.removeprefix(root), code.co_qualname.replace("<locals>.", ""))
        for code in codes
        if code.co_filename.startswith(root)
    }


def _evaluate(statement: Statement, name: str) -> None:
    system = SYSTEMS.get(name, SYSTEMS["float64"])

    def compare(sample: Any) -> Comparison:
        system.evaluate(statement, sample)
        return Comparison()

    Search(statement, compare, 2, 0, system.sizes, system.prime).draw_examples(2)


def checks_of(names: list[str]) -> list[Check]:
    """Return the checks of statements: all in their first number systems, then all in the next."""
    pairs = [(name, system) for name in names for system in systems_of(STATEMENTS[name]) if system in ORDER]
    return sorted(pairs, key=lambda pair: ORDER.index(pair[1]))


def _run(
    send: Any,
    mutant: Mutant,
    path: str,
    checks: list[Check],
    limits: Limits,
    seconds: float,
    loaded: Loaded,
) -> None:
    """Put the mutant in place and send (check, its seconds or None at its beginning, what failed)."""
    import resource  # POSIX only, as fork is

    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    signal.setitimer(signal.ITIMER_PROF, limits.check)
    source = Path(path).read_text(encoding="utf-8")
    if not loaded.replace_code(mutant.file, (ROOT / mutant.file).read_text(encoding="utf-8"), source):
        try:
            import_anew(module_name(mutant.file), path, loaded)
        except Exception as error:
            return send.send(("import", None, f"{type(error).__name__}: {error}"))
    statements = importlib.import_module("proofs.identities").STATEMENTS
    check_system: Any = importlib.import_module("proofs.checker.run").check_system
    profile, start = replace(PROFILES[limits.profile], shrink_seconds=0), time.process_time()
    for name, system in checks:
        if name in statements and time.process_time() - start < seconds:
            send.send((f"{name}, {system}", None, ""))
            signal.setitimer(signal.ITIMER_PROF, limits.check)
            began = time.process_time()
            result = check_system(statements[name], system, profile)
            failed = result.failure if result.status == "failed" else ""
            send.send((f"{name}, {system}", time.process_time() - began, failed))
            if failed:
                return None
    return None
