"""The command line: for a user's mistake one line on stderr and exit code 2, never a traceback."""

import os
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.exceptions import TyperException

from models import run_vision, tables
from models.blocks import MIXERS
from models.blocks.mlp import MLPS
from models.checkpoints import load_checkpoint
from models.errors import UserError
from models.forms import mechanisms
from models.generate import generate
from models.interrupt import stop_on_interrupt
from models.language.config import MAX_POSITIONS, NORMS
from models.memory.online_learner import NO_POINTS, POINTS
from models.progress import in_words, training_progress
from models.references import cited
from models.run import USUAL, Run, check_used, described, is_translation
from models.tasks import TASKS
from models.terminal import escape_unencodable
from models.train import CHECKPOINT, Training
from models.translate import translate

PROGRAM = "python -m models"
HELP = (
    "List mechanisms, train a language model over any mixer or a Transformer, generate text, translate, run a vision "
    "model on a picture, run the study."
)
DEFAULTS = Run()
VARIANTS = "; ".join(f"{name}: {', '.join(block.variants)}" for name, block in MIXERS.items() if any(block.variants))
SCHEMES = ", ".join(MIXERS["softmax"].schemes)
app = typer.Typer(add_completion=False, help=HELP, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command line and end the process with its exit code: 0, 2 for a mistake, 130 when interrupted."""
    escape_unencodable()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], prog_name=PROGRAM, standalone_mode=False) or 0)
    except UserError as error:
        _fail(str(error))
    except TyperException as error:  # an unknown option, a word where a number belongs
        _fail(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@app.command("list")
def list_() -> None:
    """Show the mechanisms and their forms, the mixers of a language model, and the tasks."""
    console = Console()
    tables.show(console, ("mechanism", "forms"), [(name, ", ".join(forms)) for name, forms in mechanisms().items()])
    tables.write(console, f"mixers: {', '.join(MIXERS)}")
    tables.write(console, f"tasks: {', '.join(TASKS)}")


@app.command("map")
def map_() -> None:
    """Show recurrent mechanisms as online learners, by memory, loss, optimiser and batch size; and which are none."""
    headings = ("mechanism", "memory", "loss", "optimiser", "batch", "gates", "source")
    rows = [
        (name, *(getattr(point, heading) for heading in headings[1:-1]), cited(point.source))
        for name, point in POINTS.items()
    ]
    console = Console()
    tables.show(console, headings, rows)
    reasons = [(name, other.reason, other.statement, cited(other.source)) for name, other in NO_POINTS.items()]
    tables.show(console, ("no point", "reason", "refuted by", "source"), reasons)


@app.command()
def train(
    context: typer.Context,
    mixer: Annotated[str, typer.Option(help=f"One of {', '.join(MIXERS)}.")] = DEFAULTS.mixer,
    task: Annotated[str, typer.Option(help=f"One of {', '.join(TASKS)}.")] = DEFAULTS.task,
    text: Annotated[str | None, typer.Option(help="A UTF-8 file; the Python language reference if not given.")] = None,
    pairs: Annotated[list[int], typer.Option(help="Recall: numbers of pairs, one --pairs each.")] = DEFAULTS.pairs,  # type: ignore[assignment]
    overwritten: Annotated[bool, typer.Option("--overwritten", help="Recall: write every key twice.")] = False,
    width: Annotated[int, typer.Option(help="Channels of a token.")] = DEFAULTS.width,
    layers: Annotated[int, typer.Option(help="Residual layers.")] = DEFAULTS.layers,
    heads: Annotated[int, typer.Option(help="Heads, of mixers that have them.")] = DEFAULTS.heads,
    form: Annotated[str, typer.Option(help="The form that runs over sequences; the mixer's default if empty.")] = "",
    chunk_size: Annotated[
        int, typer.Option(help="Tokens of a chunk, in TTT and Titans of the memory's mini-batch; the usual if 0.")
    ] = 0,
    states: Annotated[int, typer.Option(help="The size N of a state space; the mixer's default if 0.")] = 0,
    start: Annotated[str, typer.Option(help="Initialisation of a state space's matrix: hippo, random, …")] = "",
    variant: Annotated[str, typer.Option(help=f"{VARIANTS}; the first if empty.")] = "",
    conv: Annotated[int, typer.Option(help="Width of the short convolution; 0 for none, in mixers with heads.")] = (
        DEFAULTS.conv
    ),
    positions: Annotated[str, typer.Option(help=f"Softmax: one of {SCHEMES}; the first if empty.")] = "",
    max_positions: Annotated[int, typer.Option(help=f"Number of learned positions; {MAX_POSITIONS} if 0.")] = 0,
    kv_heads: Annotated[int, typer.Option(help="Softmax: heads of keys and values, a divisor of --heads.")] = 0,
    head_size: Annotated[int, typer.Option(help="Softmax: channels of a head; --width over --heads if 0.")] = 0,
    norm: Annotated[str, typer.Option(help=f"One of {', '.join(NORMS)}.")] = DEFAULTS.norm,
    mlp: Annotated[str, typer.Option(help=f"One of {', '.join(MLPS)}; swiglu if empty.")] = "",
    hidden: Annotated[
        int, typer.Option(help="Width inside the MLP; if 0, 8/3 of --width with a gate and 4 times without.")
    ] = 0,
    bias: Annotated[bool, typer.Option("--bias", help="Biases in softmax attention and in the MLP.")] = False,
    tied: Annotated[bool, typer.Option("--tied/--untied", help="Whether the head is the embedding.")] = True,
    steps: Annotated[int, typer.Option(help="Training steps.")] = DEFAULTS.steps,
    batch: Annotated[int, typer.Option(help="Sequences in a step.")] = DEFAULTS.batch,
    warmup: Annotated[int, typer.Option(help="Steps in which the learning rate rises.")] = DEFAULTS.warmup,
    dropout: Annotated[
        float, typer.Option(help="Dates and numbers: the share of elements dropped.")
    ] = DEFAULTS.dropout,
    length: Annotated[
        int,
        typer.Option(help="Tokens, pixels or samples in a sequence; in copying, tokens before the answers."),
    ] = DEFAULTS.length,
    seed: Annotated[int, typer.Option(help="Seed of weights and batches.")] = DEFAULTS.seed,
    rate: Annotated[float, typer.Option(help="Peak learning rate.")] = DEFAULTS.rate,
    out: Annotated[Path, typer.Option(help="The run's folder: checkpoint.safetensors and log.jsonl.")] = Path("run"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out with its settings.")] = False,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", min=1)] = 100,
    device: Annotated[str, typer.Option(help="cpu, or cuda: an NVIDIA GPU, through CuPy.")] = "cpu",
) -> None:
    """Train a language model, or on dates and numbers a Transformer. Ctrl-C stops after a step; --resume continues.

    With --resume, a larger --steps extends the run: from there on the learning rate follows the cosine for that number.
    Dates and numbers have other settings of their own where none are given; they have no --mixer, and no --rate, since
    --width and --warmup give it. Pathfinder has 256 pixels unless --length is 1024.
    """
    options = {f.name: context.params[f.name] for f in fields(Run) if _is_given(context, f.name)}
    if resume:
        training = _resumed(out, options, device)
    else:
        check_used(task, options)
        training = Training.start(Run(**{**USUAL.get(task, {}), **options}), out, device)
    with stop_on_interrupt() as stop:
        _with_progress(training, stop, save_every)
    finished = training.step == training.run.steps
    state = (
        "finished" if finished else f"stopped at step {training.step} of {training.run.steps}; continue with --resume"
    )
    print(f"{training.checkpoint}: {state}")
    if not finished:
        raise typer.Exit(130)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _resumed(out: Path, options: dict[str, Any], device: str) -> Training:
    _, about = load_checkpoint(out / CHECKPOINT)
    previous = described(out / CHECKPOINT, about)
    for name, value in options.items():
        value = tuple(value) if isinstance(value, list) else value
        if value == getattr(previous, name):
            continue
        if name != "steps":
            raise UserError(f"--{name}: expected {getattr(previous, name)} as in {out / CHECKPOINT}, got {value}")
        training = Training.resume(out, device, options["steps"])
        ends = "now" if is_translation(previous.task) else "and the learning rate's cosine now ends at"
        planned = f"planned for {previous.steps} steps, {ends} {training.run.steps}"
        print(f"{out / CHECKPOINT}: {planned}", file=sys.stderr)
        return training
    return Training.resume(out, device)


def _with_progress(training: Training, stop: threading.Event, save_every: int) -> None:
    message = ""
    with training_progress() as progress:
        bar = progress.add_task(training.objective.name, total=training.run.steps, completed=training.step, message="")
        for record in training.run_until(stop, save_every):
            message = in_words(record) or message
            progress.update(bar, completed=training.step, message=message)


app.command()(generate)
app.command()(translate)
app.add_typer(run_vision.app, name="run")


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="The study's folder: report.html, results.json and jobs/.")] = Path("study"),
    quick: Annotated[bool, typer.Option("--quick", help="A short study: two minutes on two cores.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Run the long jobs too, which take hours.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Store the results of the long jobs in the package.")
    ] = False,
) -> None:
    """Check all statements, train every mixer, and write a report; finished jobs are not run again."""
    if full and quick:
        raise UserError("--full: expected without --quick, which has no time for long jobs")
    if record and not full:
        raise UserError("--record: expected with --full, whose long jobs it keeps")
    try:
        from models.study import plans, scheduler
    except ModuleNotFoundError as error:
        hint = "which the extra 'study' installs: pip install -e '.[study]'"
        raise UserError(f"study: expected {error.name}, {hint}") from None
    code = scheduler.study(out, plans.QUICK if quick else plans.DEFAULT, full=full, record=record)
    if code:
        raise typer.Exit(code)


@app.command(hidden=True)
def job(folder: Path) -> None:
    """Run one job of a study, in its own process."""
    from models.study.jobs import STOPPED, work

    if not work(folder):
        raise typer.Exit(STOPPED)
