"""CLIP: the symmetric contrastive loss, its gradients, zero-shot classification by prompts, and where a text ends."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from hypothesis import strategies as st

import minigrad as mg
from minigrad import namespace
from minigrad.conversion import to_library_of
from minigrad.nn import Linear
from minigrad.pytree import map_arrays
from models.vision import clip, contrastive
from models.vision.encoder import EncoderConfig
from proofs.checker.statements import bounded, identity, refuted
from proofs.checker.strategies import LARGE, Strategy, elements

CHAPTER = 24

RADFORD = "radford2021"
WIDTH = 3
NONZERO = elements(1, -1, "1/2", "-1/3", 2, "-3/5", "7/5")  # a vector of zeros has no direction

VOCAB, END = 7, 2
UNIT = 2.0**-53

PAIRS = {"S": st.integers(1, 5)}
Images = Annotated[Any, Strategy(f"S {WIDTH}", NONZERO, sizes=PAIRS)]
Texts = Annotated[Any, Strategy(f"S {WIDTH}", NONZERO, sizes=PAIRS)]
Prompts = Annotated[Any, Strategy(f"S P {WIDTH}", NONZERO, sizes=PAIRS)]
Logits = Annotated[Any, Strategy("S S", LARGE, sizes=PAIRS)]
LogScale = Annotated[Any, Strategy("", elements(1, 0, -1, "3/2"))]
Order = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.permutations(range(sizes["S"]))), sizes=PAIRS)]

Seed = Annotated[int, Strategy(number=lambda draw, sizes: draw(st.integers(0, 999)))]
Words = Annotated[
    Any, Strategy(number=lambda draw, sizes: draw(st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=4)))
]
Tail = Annotated[Any, Strategy(number=lambda draw, sizes: draw(st.lists(st.integers(0, VOCAB - 1), max_size=4)))]


def loss_of(I_f: Any, T_f: Any, t: Any) -> Any:
    """Return the loss of n pairs."""
    return contrastive.contrastive_loss(contrastive.similarities(I_f, T_f, t))


# The loss


@identity(
    "The loss is −½ Σᵢ (log exp(lᵢᵢ)/Σⱼ exp(lᵢⱼ) + log exp(lᵢᵢ)/Σⱼ exp(lⱼᵢ))/n",
    source=f"{RADFORD}, section 2.3 and figure 3; talk-papers, CLIP learns by contrast with the other pairs",
)
def the_loss_is_the_paper_s(I_f: Images, T_f: Texts, t: LogScale):
    xp, n = namespace(I_f, T_f), I_f.shape[0]
    cosines = [[cosine(xp, I_f[i], T_f[j]) for j in range(n)] for i in range(n)]
    likely = [[xp.exp(xp.exp(t) * cosine) for cosine in row] for row in cosines]
    total = 0.0
    for i in range(n):
        total = total - xp.log(likely[i][i] / sum(likely[i]))
        total = total - xp.log(likely[i][i] / sum(row[i] for row in likely))
    return loss_of(I_f, T_f, t), total / (2 * n)


@identity("The loss is symmetric in images and texts", source=f"{RADFORD}, section 2.3")
def the_loss_is_symmetric(I_f: Images, T_f: Texts, t: LogScale):
    return loss_of(I_f, T_f, t), loss_of(T_f, I_f, t)


@refuted("So is the loss of each direction by itself", source=f"{RADFORD}, figure 3")
def each_direction_is_symmetric(logits: Logits):
    return contrastive.directions(logits)[0], contrastive.directions(logits.mT)[0]


@identity("The loss does not depend on the order of the pairs", source=f"{RADFORD}, figure 3")
def the_order_of_pairs_does_not_matter(I_f: Images, T_f: Texts, t: LogScale, order: Order):
    return loss_of(rows(I_f, order), rows(T_f, order), t), loss_of(I_f, T_f, t)


@refuted("Nor on the order of the texts alone (that changes the pairs)", source=f"{RADFORD}, figure 3")
def the_order_of_texts_does_not_matter(I_f: Images, T_f: Texts, t: LogScale, order: Order):
    return loss_of(I_f, rows(T_f, order), t), loss_of(I_f, T_f, t)


@identity("The loss sees directions alone: lengths of features change nothing", source=f"{RADFORD}, figure 3")
def lengths_change_nothing(I_f: Images, T_f: Texts, t: LogScale):
    return loss_of(3 * I_f, T_f / 2, t), loss_of(I_f, T_f, t)


# Gradients


@identity(
    "Each direction pulls by the softmax along its axis less the pairs: ∂loss/∂logits = (P_rows + P_columns − 2 I)/2n",
    source=f"{RADFORD}, figure 3",
)
def gradients_are_probabilities_less_pairs(logits: Logits):
    xp, n = namespace(logits), logits.shape[0]
    exps, pairs = xp.exp(logits), xp.astype(to_library_of(logits, np.eye(n)), logits.dtype)
    loss_i, loss_t = (mg.grad(lambda x, side=side: contrastive.directions(x)[side])(logits) for side in range(2))
    expected_i = (exps / xp.sum(exps, axis=1, keepdims=True) - pairs) / n
    expected_t = (exps / xp.sum(exps, axis=0, keepdims=True) - pairs) / n
    both = mg.grad(contrastive.contrastive_loss)(logits)
    return (loss_i, loss_t, both), (expected_i, expected_t, (expected_i + expected_t) / 2)


@identity(
    "The gradient of features is orthogonal to them, since their lengths do not matter",
    source=f"{RADFORD}, figure 3",
    derivatives=False,
)
def gradients_are_orthogonal_to_features(I_f: Images, T_f: Texts, t: LogScale):
    xp = namespace(I_f, T_f)
    gradients = mg.grad(lambda I, T: loss_of(I, T, t), (0, 1))(I_f, T_f)
    along = [xp.sum(x * gradient, axis=-1) for x, gradient in zip((I_f, T_f), gradients, strict=True)]
    return xp.stack(along), 0 * xp.stack(along)


@bounded(
    "At scale s the loss of n pairs is log(1 + (n − 1) exp(−2s)) at least, and log(1 + (n − 1) exp(2s)) at most",
    source=f"{RADFORD}, section 2.5: the temperature controls the range of the logits",
)
def the_scale_bounds_the_loss(I_f: Images, T_f: Texts, t: LogScale):
    xp, loss, others = namespace(I_f, T_f), loss_of(I_f, T_f, t), I_f.shape[0] - 1
    least, most = (xp.log(1 + others * xp.exp(sign * 2 * xp.exp(t))) for sign in (-1, 1))
    return xp.stack([least, loss]), xp.stack([loss, most])


# Zero-shot classification


@identity(
    "Zero-shot classification is a linear classifier of normalised features without a bias, whose weights are "
    "exp(t) times the texts' directions",
    source=f"{RADFORD}, section 3.1.2; talk-papers, CLIP classifies categories that are given as text",
)
def zero_shot_is_a_linear_classifier(I_f: Images, T_f: Texts, t: LogScale):
    classifier: Any = Linear(WIDTH, T_f.shape[0], bias=False, rng=np.random.default_rng(0))
    classifier.weight = namespace(t).exp(t) * contrastive.normalize(T_f)
    return contrastive.similarities(I_f, T_f, t), classifier(contrastive.normalize(I_f))


@identity(
    "An ensemble of prompts normalises, averages and normalises",
    source=f"{RADFORD}, section 3.1.4",
)
def an_ensemble_is_a_mean_direction(prompts: Prompts):
    xp = namespace(prompts)
    count = prompts.shape[-2]
    mean = sum(unit(xp, prompts[:, p, :]) for p in range(count)) / count
    return contrastive.ensemble(prompts), unit(xp, mean)


@identity(
    "An ensemble's logits are the prompts' mean logits over the length of the mean of their directions",
    source=f"{RADFORD}, section 3.1.4: an ensemble over the embedding space costs as much as one prompt",
)
def an_ensemble_averages_logits(I_f: Images, prompts: Prompts, t: LogScale):
    xp, count = namespace(I_f, prompts), prompts.shape[-2]
    each = [contrastive.similarities(I_f, prompts[:, p, :], t) for p in range(count)]
    mean = sum(unit(xp, prompts[:, p, :]) for p in range(count)) / count
    length = xp.sqrt(xp.sum(mean * mean, axis=-1))
    return contrastive.similarities(I_f, contrastive.ensemble(prompts), t), sum(each) / count / length


@refuted(
    "Prompts may as well be averaged before they are normalised (long features would count more)",
    source=f"{RADFORD}, section 3.1.4",
)
def an_ensemble_may_average_features(prompts: Prompts):
    return contrastive.ensemble(prompts), contrastive.normalize(namespace(prompts).mean(prompts, axis=-2))


# Texts


@bounded(
    "A text's features are those of its first end token: neither what follows nor the texts beside it change them",
    source=f"{RADFORD}, section 2.4: masked self-attention, and the features at the [EOS] token",
    only=("float64",),
)
def what_follows_the_end_changes_nothing(seed: Seed, words: Words, tail: Tail, other: Words):
    encode = small_model(seed).encode_text
    alone = encode(np.array([[*words, END]]))[0]
    longer = [*words, *other, *tail][:9]  # longer than the words, so that the batch holds what follows them
    batch = [([*text, END, *tail, *[0] * 16])[:16] for text in (words, longer)]
    errors = abs(encode(np.array(batch))[0] - alone)
    return errors, 2**12 * UNIT * (1 + abs(alone).max()) + 0 * errors


@refuted("Nor does what comes before the end (it is all that they see)", source=f"{RADFORD}, section 2.4")
def what_precedes_the_end_changes_nothing(seed: Seed, words: Words, other: Words):
    encode = small_model(seed).encode_text
    return encode(np.array([*words, END])), encode(np.array([*other, END]))


def small_model(seed: int) -> Any:
    """Return a small model in float64."""
    image, text = (EncoderConfig(4, 1, 2, causal=causal, eps=1e-5) for causal in (False, True))
    sizes: Any = {"image_size": 2, "patch_size": 2, "vocab": VOCAB, "context": 16, "end": END, "features": 3}
    model = clip.Clip(clip.ClipConfig(image, text, **sizes), np.random.default_rng(seed))
    return map_arrays(lambda array: array.astype(np.float64), model)


def cosine(xp: Any, x: Any, y: Any) -> Any:
    """Return x·y/(‖x‖ ‖y‖) of two vectors."""
    return xp.sum(x * y) / xp.sqrt(xp.sum(x * x) * xp.sum(y * y))


def unit(xp: Any, x: Any) -> Any:
    """Return rows of length 1."""
    return x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))


def rows(x: Any, order: list[int]) -> Any:
    """Return the rows of x in another order."""
    return namespace(x).stack([x[i] for i in order])
