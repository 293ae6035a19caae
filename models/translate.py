"""The command `translate`: a text through a trained or a published Transformer, greedily or by beam search."""

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from models import published
from models.errors import UserError
from models.language.decoding import FURTHER, beam_search, greedy
from models.run import is_translation
from models.tasks import text as byte_text
from models.tasks.translation import END, PAD, START
from models.train import CHECKPOINT, load_model


def translate(
    checkpoint: Annotated[
        Path,
        typer.Option(help="The folder or checkpoint of a run on dates or numbers, or a folder with a published model."),
    ],
    text: Annotated[str, typer.Option(help="The text to translate.")],
    beam: Annotated[
        int | None,
        typer.Option(
            help="Texts that a beam search keeps; 1 decodes greedily. By default what a published model names, or 1.",
            min=1,
        ),
    ] = None,
) -> None:
    """Translate a text: a date to ISO 8601, a number from digits to words or from words to digits, or a language.

    A beam search takes the text with the highest Σ log p / lp, lp = ((5 + |Y|)/6)^0.6 (Wu et al. 2016, eq. 14), or for
    a published model |Y| to the power of its length_penalty.
    """
    if not text:
        raise UserError("--text: expected at least one character, got none")
    text = byte_text.whole_characters(text, "--text")
    translation = _published if (checkpoint / "config.json").exists() else _trained
    translated, cut_at = translation(checkpoint, text, beam)
    print(byte_text.printable(translated))
    if cut_at:
        message = f"expected an end within {cut_at} tokens, got none: the text is cut off there"
        print(f"translate: {message}", file=sys.stderr)


def _trained(path: Path, text: str, beam: int | None) -> tuple[str, int]:
    """Return the translation, and after how many tokens it was cut off, 0 if it has an end."""
    path = path / CHECKPOINT if path.is_dir() else path
    model, run = load_model(path)
    if not is_translation(run.task):
        raise UserError(f"checkpoint {path}: expected a model of dates or numbers, got one trained on {run.task}")
    task = run.make_translation()
    source = np.array(task.question(text))
    target = _decoded(model, source, beam or 1, {}, {"pad": PAD, "start": START, "end": END})
    return task.characters.decode(target), 0 if END in target else len(source) + FURTHER


def _published(folder: Path, text: str, beam: int | None) -> tuple[str, int]:
    """Return the translation, and after how many tokens it was cut off, 0 if it has an end."""
    of = published.read_architecture(folder / "config.json")
    if not isinstance(of, published.TextArchitecture):
        raise UserError(f"checkpoint {folder}: expected an encoder and decoder, got a model of pictures: see run")
    if not isinstance(of, published.EncoderDecoder):
        raise UserError(f"checkpoint {folder}: expected an encoder and decoder, got a language model: see generate")
    published.require_one_vocabulary(folder)
    rules, tokenizer = of.generation(folder), published.load_tokenizer(folder)
    source = published.encode_prompt(tokenizer, text, of.vocab, "--text")
    if source[-1] != rules.end:  # the tokenizers of transformers add it, their tokenizer.json may not
        source.append(rules.end)
    if len(source) > of.max_positions:
        raise UserError(f"--text: expected at most {of.max_positions} tokens, the positions, got {len(source)}")
    options = {"tokens": rules.tokens, "banned": rules.banned, "must_end": rules.must_end}
    options |= {"pad": rules.pad, "start": rules.start, "end": rules.end}
    model = published.load_model(folder)
    target = _decoded(model, np.array(source), beam or rules.beam, {"penalty": rules.penalty}, options)
    return tokenizer.decode(target), 0 if rules.end in target else rules.tokens


def _decoded(model: Any, source: np.ndarray, beam: int, scoring: dict[str, Any], options: dict[str, Any]) -> list[int]:
    if beam == 1:
        return greedy(model, source[None], **options)[0].tolist()
    return beam_search(model, source, beam=beam, **scoring, **options)[0]
