"""Progress bars: steps, remaining time, and the last evaluation."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


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


def in_words(record: dict[str, Any]) -> str:
    """Return the held-out losses and accuracies of a log record as text, empty if it has none."""
    losses, accuracies = record.get("held_out_loss", {}), record.get("held_out_accuracy", {})
    if losses.get("text") is not None:
        return f"held-out loss {losses['text']:.3f}"
    return " ".join(f"{name}: {accuracy:.0%}" for name, accuracy in accuracies.items() if accuracy is not None)
