"""The sections of the report, and the jobs that each shows."""

from typing import NamedTuple


class Section(NamedTuple):
    """A section of the report: its title, and how the names of its jobs begin."""

    title: str
    jobs: tuple[str, ...] = ()


SECTIONS = {
    "results": Section("Results"),
    "recall": Section("Recall", ("recall-",)),
    "text": Section("Text", ("text-",)),
    "needles": Section("Needles in a haystack", ("needle-",)),
    "inner-loss": Section("The inner loss", ("text-ttt", "text-titans")),
    "surprise": Section("Surprise", ("surprise",)),
    "turned-digits": Section("Test-time training on rotated digits", ("rotation",)),
    "one-learner": Section("One online learner"),
    "hippo": Section("HiPPO's memory", ("hippo",)),
    "copying": Section("Selective copying", ("copying-",)),
    "induction": Section("Induction heads", ("induction-",)),
    "digits": Section("Digits, pixel by pixel", ("digits-",)),
    "long-range-arena": Section("Long Range Arena, in small", ("lra-",)),
    "translation": Section("Translation", ("translation-",)),
    "vit": Section("Pictures as patches: ViT", ("vit-",)),
    "transfer": Section("Pre-trained, then fine-tuned on a few", ("transfer-",)),
    "clip": Section("Pictures and their captions", ("clip-",)),
    "sam": Section("Masks of what is clicked on: Segment Anything", ("sam-",)),
    "controls": Section("Controls of test-time training", ("controls-",)),
    "capacity": Section("Recall against the size of the state", ("capacity-",)),
    "lengths": Section("Needles beyond the length of training", ("lengths-",)),
    "selected": Section("What has to depend on the input", ("selected-",)),
    "language": Section("State spaces on text", ("language-",)),
    "audio": Section("Raw audio, and half its rate", ("audio-",)),
    "targets": Section("What the memory learns to return", ("targets-",)),
    "inner-batches": Section("Batches of the inner descent", ("inner-batches-",)),
    "equal-state": Section("A matrix and an MLP with equal states", ("equal-state-",)),
    "retrievals": Section("Repeated retrieval", ("retrievals-",)),
    "through-time": Section("The gradient through time", ("through-time",)),
    "growth": Section("Cost against length", ("growth-",)),
    "attention-memory": Section("Memory of attention", ("attention-memory",)),
    "step-times": Section("Time of a training step", ("step-",)),
    "scan": Section("The scan and its fusion", ("scan-",)),
    "throughput": Section("Tokens a second", ("throughput-",)),
    "cost": Section("Cost per token", ("cost-",)),
    "talks": Section("The talks", ("proofs",)),
    "statements": Section("Statements", ("proofs",)),
    "samples": Section("Samples", ("text-",)),
    "machine": Section("Measured on"),
}


def section_of(name: str) -> str:
    """Return a section's id, or that of the first section that shows a job. Raises LookupError for another name."""
    if name in SECTIONS:
        return name
    for section, (_, jobs) in SECTIONS.items():
        if name.startswith(jobs):
            return section
    raise LookupError(f"expected a section of the report or the name of a job, got {name!r}")
