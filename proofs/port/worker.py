"""The process that a port runs in: it reads a request, makes the check and writes the answer, all in one folder.

request.json    what to check (`Request`), and the runs that are known to end the process
calls           a line when the port has been imported, and two for each run: the key of its inputs, and its return
stdout, stderr  what the process prints
stack           where the process was when it crashed, or when the time limit ended it
answer.json     the answer (`Answer`); missing where the process ended before
"""

from __future__ import annotations

import faulthandler
import hashlib
import io
import json
import os
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.errors import UserError
from proofs.checker.workers import initialize
from proofs.port import snippets
from proofs.port.cases import Case, Inputs
from proofs.port.checking import Finding, Report, check
from proofs.port.comparing import failure
from proofs.port.loading import CannotImport, load
from proofs.port.locating import described, line_on_stack
from proofs.port.reference import leaves
from proofs.port.running import NOT_RUN, Outcome, Port
from proofs.port.serialize import to_json

RIGHT, WRONG, USAGE, UNDECIDED = range(4)  # the exit codes
CHOICES = ("cases", "precisions", "statements", "adversarial", "seed")  # options that do not describe the port


@dataclass
class Request:
    """A request to check a port: its file and function, the form, the options of `check`, and a test to write."""

    place: str
    form: str
    options: dict[str, Any]
    backward: str = ""
    intermediates: str = ""
    test_file: str = ""
    time_limit: float = 0.0  # seconds for one run of the port
    memory_limit: float = 0.0  # GiB
    ended: dict[str, list[str]] = field(default_factory=dict)  # by the key of a run that ended its process: how, where
    only: list[str] | None = None  # the keys of the only runs to make; None for all

    @property
    def file(self) -> str:
        """Return the port's file, empty where it is named as a module."""
        where = self.place.rpartition(":")[0]
        return str(Path(where).resolve()) if where.endswith(".py") else ""


@dataclass
class Answer:
    """The exit code; an error in one line, or the report as text and for JSON, and the text of a test file."""

    code: int
    error: str = ""
    text: str = ""
    report: dict[str, Any] | None = None
    test: str = ""


def answer(request: Request, supervision: Supervision | None = None) -> Answer:
    """Load the port, check it in this process, and return the answer."""
    where = request.place.rpartition(":")[0]
    try:
        function, source = load(request.place)
        backward, intermediates = (
            load(f"{where}:{name}")[0] if name else None for name in (request.backward, request.intermediates)
        )
        if supervision:
            supervision.begin()
        declared = {**request.options, "backward": backward, "intermediates": intermediates, "source": source}
        report = check(function, request.form, **declared)
        if supervision:
            supervision.end(report)
    except CannotImport as error:
        return Answer(UNDECIDED, str(error))
    except UserError as error:
        return Answer(USAGE, str(error))
    test = ""
    if request.test_file:
        folder = Path(request.test_file).resolve().parent
        imported = f"{source}, {request.backward}" if request.backward else source
        if request.file and Path(request.file).parent != folder:
            imported = f"\nsys.path.insert(0, {str(Path(request.file).parent)!r})\n{imported}"
        options = {name: value for name, value in request.options.items() if name not in CHOICES}
        test = snippets.test_file(report, imported, {**options, "backward": request.backward or None})
    code = RIGHT if report.right else WRONG if report.cells else UNDECIDED
    return Answer(code, "", str(report), to_json(report), test)


class Recorder(io.TextIOWrapper):
    """Standard output that notes which line of the port first writes to it."""

    def __init__(self, file: str):
        super().__init__(open(1, "wb", closefd=False), encoding="utf-8", errors="replace", write_through=True)
        self.file, self.line = file, ""

    def write(self, text: str, /) -> int:
        self.line = self.line or line_on_stack(sys._getframe(1), self.file)
        return super().write(text)


class Supervision:
    """The record of all runs of the port, the limit on their time, and the outcome of those that ended a process."""

    def __init__(self, folder: Path, request: Request):
        self.request, self.printed = request, folder / "stdout"
        self.calls = open(folder / "calls", "w", encoding="utf-8", buffering=1)
        self.stack = open(folder / "stack", "w", encoding="utf-8")
        faulthandler.enable(file=self.stack)
        self.notes = limit_memory(request.memory_limit) if request.memory_limit else []
        sys.stdout = self.output = Recorder(request.file)
        self.seen = 0  # bytes of output
        self.start()

    def start(self) -> None:
        """Start the clock of the time limit."""
        if self.request.time_limit:
            faulthandler.dump_traceback_later(self.request.time_limit, exit=True, file=self.stack)

    def begin(self) -> None:
        """Supervise the runs of the port, which has been imported."""
        faulthandler.cancel_dump_traceback_later()
        if text := self.new_output():
            self.notes.append(f"the port's module prints {text} when it is imported")
        Port.watch = self
        self.calls.write("imported\n")

    def end(self, report: Report) -> None:
        """Enter the runs that ended their process and are in no finding, as where they are not tried again."""
        shown = {finding.divergence.message for finding in report.findings}
        for reason, precision, length in self.request.ended.values():
            if reason not in shown:
                case = Case(f"another run, T = {length}")
                report.cells[precision, case.name, ""] = "wrong"
                report.findings.append(Finding(case, precision, failure("", reason)))
                shown.add(reason)
        if self.request.only is not None:
            self.notes.append("the port was not run any more after that: what has no entry was left out")
        report.notes += self.notes

    def before(self, inputs: Inputs, precision: str, *, gradients: bool) -> Outcome | None:
        """Return an outcome for a run that ends the process or is not to be made."""
        key = key_of(inputs, precision, gradients=gradients)
        if key in self.request.ended:
            return Outcome(failures={"": self.request.ended[key][0]})
        if self.request.only is not None and key not in self.request.only:
            return Outcome(failures={"": NOT_RUN})
        self.calls.write(f"run {key} {precision} {inputs.length}\n")
        self.start()
        return None

    def after(self, outcome: Outcome) -> None:
        """Enter what the run printed."""
        faulthandler.cancel_dump_traceback_later()
        self.calls.write("returned\n")
        if text := self.new_output():
            outcome.failures["output"] = f"the port prints {text}"

    def new_output(self) -> str:
        """Return the first line printed since the last call, and where; empty if there is none."""
        self.output.flush()
        with open(self.printed, "rb") as file:
            file.seek(self.seen)
            new = file.read(10_000)
        self.seen, line, self.output.line = self.printed.stat().st_size, self.output.line, ""
        first = new.decode("utf-8", "replace").strip().partition("\n")[0].strip()
        return f"{first[:80]!r}{line}" if new else ""


def key_of(inputs: Inputs, precision: str, *, gradients: bool) -> str:
    """Return a key of a run: a hash of its inputs."""
    parts: list[Any] = [precision, gradients, inputs.chunk]
    for name, x in [*inputs.arrays.items(), *enumerate(leaves(inputs.state))]:
        parts += [name, x.shape, x.dtype.str, x.tobytes()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def limit_memory(gib: float) -> list[str]:
    """Limit the memory that this process may allocate; return a note where the system does not."""
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        wanted = int(gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
    except (ImportError, ValueError, OSError):
        return ["memory is not limited: this system has no limit for a process"]
    return [] if sys.platform == "linux" else ["memory is not limited on this system, which does not enforce it"]


def guarded(request: Request, supervision: Supervision | None) -> Answer:
    """Return the answer, in one line where the kit has a fault or the port throws something into it."""
    try:
        return answer(request, supervision)
    except BaseException as error:
        *_, frame = traceback.extract_tb(error.__traceback__)
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        hint = "--in-process shows the traceback"
        return Answer(UNDECIDED, f"the check itself fails: {described(error)}, raised at {place}; {hint}")


def main(folder: Path) -> None:
    """Answer the request in this folder."""
    request = Request(**json.loads((folder / "request.json").read_text(encoding="utf-8")))
    initialize(os.getppid())
    given = guarded(request, Supervision(folder, request))
    part = folder / "answer.part"
    part.write_text(json.dumps(asdict(given)), encoding="utf-8")
    part.replace(folder / "answer.json")
    os._exit(0)  # whatever the port has left behind


if __name__ == "__main__":
    main(Path(sys.argv[1]))
