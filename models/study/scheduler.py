"""Scheduler of the study: run its jobs in parallel or alone, and write a report of the results.

Jobs run two at a time with one BLAS thread each; timings run alone, last. Stopped jobs are resumed, and finished ones
are not computed again.
"""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import Progress

from models import log
from models.checkpoints import write_atomically
from models.interrupt import stop_on_interrupt
from models.lock import claim
from models.progress import in_words, training_progress
from models.study import jobs, recorded, report
from models.study.experiment_plans import SEED
from models.study.jobs import Job
from models.study.machine import machine
from models.study.plans import QUICK, Sizes, long_jobs, plan

WORKERS = 2
TIMED = ("cost", "growth", "scan")  # kinds that run alone


class Scheduler:
    """Runs the processes of a study: a few in parallel, then the timings one by one, each with a progress bar."""

    def __init__(self, plan: list[Job], study: Path, progress: Progress) -> None:
        self.study, self.progress = study, progress
        self.waiting = [job for job in plan if job.result(study) is None]
        self.running: dict[str, subprocess.Popen] = {}
        self.errors: dict[str, str] = {}
        self.bars = {job.name: progress.add_task(job.name, total=job.steps, message="") for job in plan}
        for job in plan:
            self.show(job)

    def run(self, stop: threading.Event) -> None:
        """Run the unfinished jobs; when `stop` is set, ask running ones to stop after their step, and wait for them."""
        jobs_by_name = {job.name: job for job in self.waiting}
        interrupted = False
        try:
            while self.running or (self.waiting and not stop.is_set()):
                while not stop.is_set() and self.waiting and self.has_room(self.waiting[0]):
                    job = self.waiting.pop(0)
                    self.running[job.name] = jobs.start(job, self.study)
                if stop.is_set() and not interrupted:
                    interrupted = True
                    for process in self.running.values():
                        process.send_signal(signal.SIGINT)
                time.sleep(0.2)
                for name in list(self.running):
                    self.poll(jobs_by_name[name])
        finally:  # after a second Ctrl-C some may still run
            for process in self.running.values():
                process.kill()

    def has_room(self, job: Job) -> bool:
        """Return whether a job may start now: a timing only when nothing else runs."""
        return not self.running if job.kind in TIMED else len(self.running) < WORKERS

    def poll(self, job: Job) -> None:
        """Update a job's progress bar; when it has ended, stop tracking it and record its error, if any."""
        code = self.running[job.name].poll()
        self.show(job)
        if code is None:
            return
        del self.running[job.name]
        if code not in (0, jobs.STOPPED):
            lines = (job.folder(self.study) / "errors.txt").read_text().split("\n")
            self.errors[job.name] = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
            self.progress.update(self.bars[job.name], message=f"failed: {self.errors[job.name]}")

    def show(self, job: Job) -> None:
        """Set a job's progress bar from its log and its result."""
        bar = self.bars[job.name]
        if job.result(self.study) is not None:
            self.progress.update(bar, completed=job.steps)
        records = job.records(self.study)
        if records:
            message = next((words for record in reversed(records) if (words := in_words(record))), "")
            self.progress.update(bar, completed=records[-1]["step"], message=message)


def study(out: Path, sizes: Sizes, *, full: bool = False, record: bool = False) -> int:
    """Run the study into `out`, write results.json and report.html; return the exit code.

    That is 0 when all jobs finished and every statement holds, 1 when a job or a statement failed, 130 when stopped.
    `record` stores the results of the long jobs in the package.

    Raises: UserError when another process runs a study into `out`.
    """
    begin, planned = time.perf_counter(), plan(sizes, full=full)
    with claim(out), stop_on_interrupt() as stop, training_progress() as progress:
        scheduler = Scheduler(planned, out, progress)
        scheduler.run(stop)
    if record:
        for job in long_jobs(sizes):
            if path := recorded.record(job, out):
                print(f"recorded {path}")
    results = {**collect(planned, long_jobs(sizes), out), "quick": sizes is QUICK, "errors": scheduler.errors}
    write_atomically(out / "results.json", log.dumps(results, indent=1))
    write_atomically(out / "report.html", report.render(results, out / "report.html"))
    missing = [job.name for job in planned if job.result(out) is None]
    finished, seconds = len(planned) - len(missing), time.perf_counter() - begin
    print(f"{out / 'report.html'}: {finished} of {len(planned)} jobs are done; this took {seconds:.0f} s")
    for name, error in scheduler.errors.items():
        print(f"{name} failed: {error}", file=sys.stderr)
    if missing:
        print(f"not finished: {', '.join(missing)}; the same command resumes them")
    proofs = planned[0].result(out)
    if scheduler.errors or (proofs and proofs["exit_code"]):
        return 1
    return jobs.STOPPED if missing else 0


def collect(planned: list[Job], long: list[Job], out: Path) -> dict[str, Any]:
    """Return all results by job, with the machine and versions they were measured with.

    A long job that was not run here has its recorded result, with the machine that computed it.
    """
    names = {job.name for job in planned}
    by_name = {job.name: {**_summary(job, out), "planned": True} for job in planned}
    for job in long:
        if job.name not in names:
            by_name[job.name] = {**_summary(job, out), "planned": False}
        if by_name[job.name]["result"] is None and (record := recorded.load(job)):
            by_name[job.name] |= {**record, "recorded": True}
    return {"seed": SEED, "machine": machine(), "jobs": by_name}


def _summary(job: Job, out: Path) -> dict[str, Any]:
    result = job.result(out)
    measured_on = result.pop("machine", None) if result else None
    return {**asdict(job), "records": job.records(out), "result": result, "machine": measured_on, "recorded": False}
