"""Encoders and decoders: what the decoder is given of the source, and how it writes.

The encoder of recurrent networks before attention (Sutskever et al. 2014) gives its decoder one vector of fixed size,
its last state. The Transformer's gives it as many vectors as the source has tokens, to every layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.attention.multihead import split_heads
from models.language import decoding
from models.language.transformer import LayerState
from models.recurrent import lstm
from proofs.checker.statements import grows, identity, refuted
from proofs.identities.transformer import (
    END,
    PAD,
    START,
    WIDTH,
    Seed,
    Source,
    Target,
    Words,
    cached_model,
    in_float64,
    keys_of,
    make_model,
)

CHAPTER = 1

VASWANI, SUTSKEVER = "vaswani2017", "sutskever2014"
TALK = "talk-papers, Attention is all you need, question 2"

# One vector, or one for each token


@grows(
    "The encoder gives the decoder a vector for each token of the source, not one of fixed size",
    source=f"{VASWANI}, section 3: z = (z₁, …, zₙ); {TALK}",
    order=1,
)
def size_of_what_is_encoded(length: int):
    return keys_of(make_model().read(np.ones((length, WIDTH)))).size


@grows(
    "One vector of fixed size is what the encoder of a recurrent network gives: its last state",
    source=f"{SUTSKEVER}, section 2; {TALK}",
    order=0,
)
def size_of_a_recurrent_encoding(length: int):
    x, ones = np.ones((length, WIDTH)), np.ones((4 * WIDTH, WIDTH)) / 8
    _, state = lstm.recurrent(x, ones, ones, ones[:, 0])
    return sum(part.size for part in state)


@refuted(
    "So the Transformer's decoder could read one vector, the mean of what the encoder gives",
    source=f"{VASWANI}, section 3.2.3; {TALK}: 'a context vector'; bahdanau2014, abstract: a bottleneck",
    relation="≤",
    instead="encoder_decoder.size_of_what_is_encoded",
)
def one_vector_is_enough(x: Source, y: Target):
    x, y = (np.asarray(tokens, dtype=np.float64) for tokens in (x, y))
    model = in_float64(make_model())
    encoded = encode(model, x)
    mean = encoded.mean(axis=-2, keepdims=True)
    return abs(write(model, y, encoded) - write(model, y, mean)), np.full(y.shape, 0.01)


@identity(
    "Every layer of the decoder attends to the output of the last encoder layer, each with keys and values of its own",
    source=f"{VASWANI}, section 3.2.3 and figure 1; talk-meeting, (1)",
    only=("float64", "float32", "gradient"),
)
def every_layer_reads_the_encoder(x: Source):
    model = make_model(layers=2)
    encoded = encode(model, x)
    return [layer.source for layer in model.read(x).layers], [
        (split(layer.cross.key(encoded)), split(layer.cross.value(encoded))) for layer in model.decoder
    ]


@refuted(
    "Layer l of the decoder attends to layer l of the encoder",
    source=f"{VASWANI}, section 3.2.3 and figure 1; talk-meeting, (1)",
    instead="encoder_decoder.every_layer_reads_the_encoder",
)
def layers_are_paired(x: Source):
    model = make_model(layers=2)
    first = model.encoder[0](x)
    return model.read(x).layers[0].source[0], split(model.decoder[0].cross.key(first))


# Writing


@identity(
    "The decoder writes from its own outputs: a greedy text, read at once, predicts each token from those before it",
    source=f"{VASWANI}, section 3: auto-regressive; {TALK}",
    derivatives=False,
    only=("float64",),
)
def a_text_is_predicted_from_itself(seed: Seed, source: Words):
    model = cached_model(seed)
    (text,) = decoding.greedy(model, np.array([source]), pad=PAD, start=START, end=END, tokens=8)
    return text, model(np.array(source), np.array([START, *text[:-1]]), pad=PAD).argmax(axis=-1)


@refuted(
    "All tokens of a text could be written at once, each from the source and its place (each reads those before it)",
    source=f"{VASWANI}, section 3: auto-regressive; {TALK}",
    instead="encoder_decoder.a_text_is_predicted_from_itself",
)
def a_text_is_written_at_once(seed: Seed, source: Words):
    model = cached_model(seed)
    (text,) = decoding.greedy(model, np.array([source]), pad=PAD, start=START, end=END, tokens=8)
    return text, model(np.array(source), np.full(len(text), START), pad=PAD).argmax(axis=-1)


def encode(model: Any, x: Any) -> Any:
    """Return the output of the encoder's last layer for embeddings x (*batch, S, width)."""
    for layer in model.encoder:
        x = layer(x)
    return x


def write(model: Any, y: Any, encoded: Any) -> Any:
    """Return the output of a decoder of one layer, for embeddings y, after an encoder's output."""
    (layer,) = model.decoder
    return layer(y, LayerState(layer.cross.keys_and_values(encoded), None))[0]


def split(x: Any) -> Any:
    """Return (*batch, 2, T, width/2), the two heads."""
    return split_heads(x, 2)
