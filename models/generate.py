"""The command `generate`: continue a prompt with a trained or a published model, streaming the text."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import typer

from models import published
from models.errors import UserError
from models.language.lm import generate as generate_tokens
from models.tasks import text
from models.train import CHECKPOINT, load_model


class Detokenizer(Protocol):
    """Incremental conversion of tokens to text."""

    def add(self, tokens: Sequence[int]) -> str:
        """Return the characters that these tokens complete."""

    def flush(self) -> str:
        """Return the text of an incomplete character at the end."""


class Start(NamedTuple):
    """The inputs of generation: the model, the prompt as tokens and as printed, and the end tokens."""

    model: Any
    prompt: np.ndarray
    echo: str
    detokenizer: Detokenizer
    stop: Collection[int]


def generate(
    checkpoint: Annotated[
        Path,
        typer.Option(
            help="The folder or checkpoint of a run on text, or a folder with a published model, or RWKV-7's .pth."
        ),
    ],
    prompt: Annotated[str, typer.Option(help="Beginning of the text.")] = "The ",
    tokens: Annotated[
        int, typer.Option(help="Tokens to generate at most; a token of our own models is a byte.", min=0)
    ] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.", min=0)] = 0.8,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.", min=0)] = 0,
) -> None:
    """Continue a prompt, one token at a time from the state: at constant cost per token, except with softmax attention.

    Control characters other than tabs and line breaks are printed as escapes, such as \\x00.
    """
    if not prompt:
        raise UserError("--prompt: expected at least one character, got none")
    source = None if (checkpoint / CHECKPOINT).exists() else published.find(checkpoint)
    model, ids, echo, detokenizer, stop = _published(source, prompt) if source else _trained(checkpoint, prompt)
    _require_positions(getattr(model, "max_positions", 0), len(ids), tokens)
    rng = np.random.default_rng(seed)
    try:
        _write(echo)
        for token in generate_tokens(model, ids, tokens=tokens, temperature=temperature, rng=rng, stop=stop):
            _write(detokenizer.add([token]))
        _write(detokenizer.flush())
    finally:  # end the line, also on Ctrl-C
        _write("\n")


def _require_positions(max_positions: int, prompt: int, tokens: int) -> None:
    """Raise a UserError if the model has learned positions, and too few for the text; its last token needs none."""
    if max_positions and tokens and prompt + tokens - 1 > max_positions:
        most = f"at most {max(0, max_positions + 1 - prompt)} after a prompt of {prompt} tokens"
        raise UserError(f"--tokens: expected {most}, since the model has {max_positions} positions, got {tokens}")


def _published(source: Path, prompt: str) -> Start:
    prompt, folder = text.whole_characters(prompt), source.parent
    of = published.read_architecture(source)
    if isinstance(of, published.EncoderDecoder):
        raise UserError(f"checkpoint {folder}: expected a language model, got an encoder and decoder: see translate")
    if not isinstance(of, published.TextArchitecture):
        raise UserError(f"checkpoint {folder}: expected a language model, got one of pictures: see run")
    model, tokenizer = published.load_model(source), published.load_tokenizer(folder)
    ids = published.encode_prompt(tokenizer, prompt, of.vocab)
    stop = published.end_tokens(folder, tokenizer)
    return Start(model, np.array(ids), prompt, published.Detokenizer(tokenizer, ids), stop)


def _trained(path: Path, prompt: str) -> Start:
    if path.is_dir():
        if not (path / CHECKPOINT).exists():
            raise UserError(f"checkpoint {path}: expected {CHECKPOINT}, config.json or a .pth in the folder, got none")
        path = path / CHECKPOINT
    model, run = load_model(path)
    if run.task != "text":
        raise UserError(f"checkpoint {path}: expected a model trained on text, got one trained on {run.task}")
    ids, detokenizer = text.encode(prompt), text.Detokenizer()
    return Start(model, ids, detokenizer.add(ids), detokenizer, ())


def _write(piece: str) -> None:
    print(text.printable(piece), end="", flush=True)
