"""A causal language model: what is added to the embeddings of tokens, and that positions go on from what was read."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

from models.language import lm
from models.language.config import Config
from proofs.checker.statements import Instance, bounded
from proofs.checker.strategies import Strategy
from proofs.identities.transformer import in_float64

CHAPTER = 1

WIDTH, VOCAB, LONGEST = 4, 5, 6
SCHEMES = [Instance(scheme, {"scheme": scheme}, {}) for scheme in ("sinusoidal", "learned")]

Words = Annotated[
    Any, Strategy(number=lambda draw, sizes: draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=LONGEST)))
]


@bounded(
    "What the first layer reads is √width E[token] + PE[t], or E[token] + P[t] where positions are learned, with t "
    "counted from the first token of the text, wherever it is cut",
    source="vaswani2017, sections 3.4 and 3.5; minigrad, models/language/lm.py",
    over=SCHEMES,
    only=("float64",),
)
def positions_enter_with_the_embeddings(words: Words, scheme: str):
    sizes: dict[str, Any] = {"width": WIDTH, "heads": 2, "conv": 0, "layers": 1, "vocab": VOCAB}
    table = LONGEST if scheme == "learned" else 0
    config = Config(mixer="softmax", form="quadratic", positions=scheme, max_positions=table, **sizes)
    model: Any = in_float64(lm.LanguageModel(config, np.random.default_rng(0)))
    text, E = np.array(words), model.embedding.weight
    if scheme == "learned":
        expected = E[text] + model.position_embedding[: len(text)]
    else:
        waves = [[math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)] for t in range(len(text))]
        expected = 2 * E[text] + np.array(waves)
    errors = [abs(model.embed(text, None) - expected)]
    for cut in range(1, len(text)):
        _, state = model(text[:cut])
        errors.append(abs(model.embed(text[cut:], state) - expected[cut:]))
    return errors, [np.full(x.shape, 2.0**-45) for x in errors]
