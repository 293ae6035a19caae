"""The command `generate`: continue a prompt with a model trained here or published elsewhere."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from models import published
from models.errors import UserError
from models.language.lm import generate as generate_tokens
from models.tasks import text
from models.train import load_model


def generate(
    checkpoint: Annotated[Path, typer.Option(help="A checkpoint trained on text, or a folder with a published Mamba.")],
    prompt: Annotated[str, typer.Option(help="What the text starts with.")] = "The ",
    tokens: Annotated[int, typer.Option(help="Tokens to generate; a token of our own models is a byte.", min=0)] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.", min=0)] = 0.8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Continue a prompt one token at a time, from the state alone: a constant cost a token for every memory mixer."""
    if not prompt:
        raise UserError("--prompt: expected at least one character, got none")
    rng = np.random.default_rng(seed)
    if (checkpoint / "config.json").exists():
        mamba, tokenizer = published.load_model(checkpoint), published.load_tokenizer(checkpoint)
        given = tokenizer.encode(prompt).ids
        out = generate_tokens(mamba, np.array(given, dtype=int), tokens=tokens, temperature=temperature, rng=rng)
        print(tokenizer.decode([*given, *out]))
        return
    model, run = load_model(checkpoint)
    if run.task != "text":
        raise UserError(f"checkpoint {checkpoint}: expected a model trained on text, got one trained on {run.task}")
    out = generate_tokens(model, text.encode(prompt), tokens=tokens, temperature=temperature, rng=rng)
    print(prompt + text.decode(np.array(list(out))))
