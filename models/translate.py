"""The command `translate`: a text through a trained Transformer, greedily or by beam search."""

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from models.errors import UserError
from models.language.decoding import FURTHER, beam_search, greedy
from models.run import is_translation
from models.tasks import text as byte_text
from models.tasks.translation import END, PAD, START
from models.train import CHECKPOINT, load_model


def translate(
    checkpoint: Annotated[Path, typer.Option(help="The folder or checkpoint of a run on dates or numbers.")],
    text: Annotated[str, typer.Option(help="The text to translate.")],
    beam: Annotated[int, typer.Option(help="Texts that a beam search keeps; 1 decodes greedily.", min=1)] = 1,
) -> None:
    """Translate a text: a date to ISO 8601, a number from digits to words or from words to digits.

    A beam search takes the text with the highest Σ log p / lp, lp = ((5 + |Y|)/6)^0.6 (Wu et al. 2016, eq. 14).
    """
    if not text:
        raise UserError("--text: expected at least one character, got none")
    path = checkpoint / CHECKPOINT if checkpoint.is_dir() else checkpoint
    model, run = load_model(path)
    if not is_translation(run.task):
        raise UserError(f"checkpoint {path}: expected a model of dates or numbers, got one trained on {run.task}")
    task = run.make_translation()
    source = np.array(task.question(byte_text.whole_characters(text, "--text")))
    tokens = {"pad": PAD, "start": START, "end": END}
    if beam == 1:
        target = greedy(model, source[None], **tokens)[0].tolist()
    else:
        target, _ = beam_search(model, source, beam=beam, **tokens)
    print(task.characters.decode(target))
    if END not in target:
        limit = len(source) + FURTHER
        print(f"translate: expected an end within {limit} tokens, got none: the text is cut off there", file=sys.stderr)
