"""Progress bars: steps, remaining time, and the last evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 3.0  # seconds
T = TypeVar("T")


def training_progress() -> Progress:
    """Return progress bars on stderr; a bar's field `message` is shown after it."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}"),
        console=Console(stderr=True),
    )


def tracked(items: Sequence[T], name: str) -> Iterator[T]:
    """Yield the items; a progress bar on stderr says how many are done, from some seconds after the first on."""
    start, progress = monotonic(), training_progress()
    bar = progress.add_task(name, total=len(items), message="")
    with ExitStack() as stack:
        for item in items:
            yield item
            progress.update(bar, advance=1)
            if not progress.live.is_started and monotonic() - start > PATIENCE:
                stack.enter_context(progress)


def in_words(record: dict[str, Any]) -> str:
    """Return the held-out losses, accuracies or IoUs of a log record as text, empty if it has none."""
    losses, accuracies = record.get("held_out_loss", {}), record.get("held_out_accuracy", {})
    if "held_out_iou" in record:
        return f"IoU of a click {record['held_out_iou']['1']:.3f}, of a box {record['held_out_iou']['box']:.3f}"
    if losses.get("text") is not None:
        return f"held-out loss {losses['text']:.3f}"
    return " ".join(f"{name}: {accuracy:.0%}" for name, accuracy in accuracies.items() if accuracy is not None)
