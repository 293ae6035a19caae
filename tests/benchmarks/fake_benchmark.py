"""Workloads for the tests of the runner: numbers instead of frameworks."""

import threading

from benchmarks.workload import Implementation, Run, Workload


def doubling(*, size):
    print("a library that prints")  # must not end up between the answers
    return Run(lambda: [2 * i for i in range(size)], lambda: {"value": [2.0 * i for i in range(size)]})


def adding(*, size):
    return Run(lambda: [i + i for i in range(size)], lambda: {"value": [1.0 * i + i for i in range(size)]})


def wrong(*, size):
    return Run(lambda: None, lambda: {"value": [2.0 * i + 1e-3 for i in range(size)]})


def failing(*, size):
    raise RuntimeError("no such device")


def hanging(*, size):
    threading.Event().wait()


OURS = Implementation("doubling", doubling)
ABSENT = Implementation("absent", adding, needs=("a_framework_nobody_wrote",))


def workload(name, *implementations, **options):
    return Workload(name, f"Twice, {name}", {"size": 5}, implementations, tolerance=1e-9, memory=True, **options)


WORKLOADS = (
    workload("agreeing", OURS, Implementation("adding", adding), ABSENT),
    workload("disagreeing", OURS, Implementation("wrong", wrong)),
    workload("failing", OURS, Implementation("failing", failing)),
    workload("hanging", OURS, Implementation("hanging", hanging)),
    workload("ours_absent", ABSENT, OURS),
    workload("floored", OURS, floor={"exponentials": 1e3, "operations": 2e3, "bytes": 10.0}),
)
