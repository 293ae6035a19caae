"""Ctrl-C as an event that is checked between two steps, so that no step is interrupted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# SIGTERM is what `kill`, batch systems and a shutdown send; SIGBREAK is Ctrl-Break, which Windows alone has.
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or request to terminate, into a set event; the second one interrupts as Ctrl-C does.

    Python answers signals in the main thread alone: in any other one the event is there for the caller to set.
    """
    stop = threading.Event()

    def handle(_signal: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    ours = SIGNALS if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.signal(number, handle) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None stands for a handler that was not set from Python, which cannot be set again from there.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
