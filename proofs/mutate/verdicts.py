"""Mutants and verdicts on them, the file that records a run, and the list of explained survivors."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from proofs.files import write

RECORDED, SURVIVORS = (Path(__file__).with_name(name) for name in ("recorded.json", "survivors.toml"))


@dataclass(frozen=True)
class Mutant:
    """A change of one expression: where it is, as a reader sees it, and what stands there instead."""

    file: str  # relative to the repository
    function: str  # its qualified name; "" outside functions and classes
    line: str  # the text of the first line of what is changed
    change: str  # "a + b → a - b", with a number where the line has the same several times

    def __str__(self) -> str:
        return f"{self.file}, {self.function or 'module'}: {self.change}"


@dataclass(frozen=True)
class Limits:
    """Limits of checks, in seconds of CPU time, and the profile that sets their number of examples."""

    mutant: float = 60.0  # all checks of a mutant; after that it survives
    check: float = 60.0  # one check; after that it counts as failed
    profile: str = "quick"


class Kill(NamedTuple):
    """A statement that failed with a mutant in this function."""

    file: str
    function: str
    statement: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on a mutant: killed, and by which check, or survived."""

    mutant: Mutant
    by: str = ""  # what killed it: a statement and its number system, "import", or a file of tests
    failure: str = ""
    passed: int = 0  # how many checks passed before
    seconds: float = 0.0

    @property
    def kill(self) -> Kill:
        """The statement that killed it, and where."""
        return Kill(self.mutant.file, self.mutant.function, self.by.partition(", ")[0])


@dataclass(frozen=True)
class Record:
    """The verdicts of a run: what was called, when, and how many mutants there are in each group that it drew from."""

    command: str
    date: str
    mutants: Mapping[str, int]
    verdicts: Sequence[Verdict]


def read_record(path: Path) -> Record:
    """Read what `write_record` wrote. Raises ValueError, in one line, for another file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        verdicts = [Verdict(Mutant(**verdict.pop("mutant")), **verdict) for verdict in record.pop("verdicts")]
        return Record(**record, verdicts=verdicts)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is no record of verdicts: {error}") from None


def write_record(path: Path, record: Record) -> None:
    """Write a record as JSON, a verdict a line."""
    head = json.dumps(asdict(replace(record, verdicts=[])), ensure_ascii=False).removesuffix("[]}")
    lines = ",\n".join(json.dumps(asdict(verdict), ensure_ascii=False) for verdict in record.verdicts)
    write(path, f"{head}[\n{lines}\n]}}\n")


def read_survivors(path: Path = SURVIVORS) -> dict[Mutant, tuple[str, str]]:
    """Return the explained survivors: why each survives, and the test that kills it, "" for an equivalent one.

    Raises ValueError for an entry without a reason, or one that is there twice.
    """
    survivors: dict[Mutant, tuple[str, str]] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("survivors", []):
        why, test = entry.pop("why", ""), entry.pop("killed_by", "")
        mutant = Mutant(**entry)
        if not why or mutant in survivors:
            raise ValueError(f"{path.name}: {mutant}: {'has no reason' if not why else 'is there twice'}")
        survivors[mutant] = why, test
    return survivors


@dataclass
class Tally:
    """Numbers of mutants by verdict."""

    killed: int = 0  # by statements
    killed_by_tests: int = 0
    equivalent: int = 0  # by the list of explained survivors, which are not judged
    survived: int = 0  # and unexplained

    @property
    def judged(self) -> int:
        """The number of verdicts."""
        return self.killed + self.killed_by_tests + self.equivalent + self.survived

    def score(self, *, with_tests: bool = False) -> float:
        """Return the part that is killed, of those that are not equivalent; 1 where there are none."""
        killed = self.killed + (self.killed_by_tests if with_tests else 0)
        return killed / (self.judged - self.equivalent) if self.judged > self.equivalent else 1.0


def tally(verdicts: Iterable[Verdict], survivors: Mapping[Mutant, tuple[str, str]]) -> Tally:
    """Count verdicts, the survivors by what explains them."""
    result = Tally()
    for verdict in verdicts:
        why, test = survivors.get(verdict.mutant, ("", ""))
        if verdict.by and not verdict.by.startswith("tests/"):
            result.killed += 1
        elif verdict.by or test:
            result.killed_by_tests += 1
        elif why:
            result.equivalent += 1
        else:
            result.survived += 1
    return result
