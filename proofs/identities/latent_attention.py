"""Multi-head latent attention: heads made of one latent vector a token, and up-projections on either side."""

from __future__ import annotations

from typing import Annotated, Any

from minigrad import namespace
from models.attention import latent, multihead, softmax
from models.memory import linear_attention
from proofs.checker.statements import Instance, identity
from proofs.checker.strategies import LARGE, SMALL, Strategy

CHAPTER = 1

DEEPSEEK = "deepseek2024v2"
HEADS, K, J, R, V = 2, 2, 1, 3, 2

HeadQueries = Annotated[Any, Strategy(f"*batch {HEADS} T {K + J}", LARGE)]
Latents = Annotated[Any, Strategy(f"*batch T {R + J}", SMALL)]
UpKeys = Annotated[Any, Strategy(f"{HEADS} {K} {R}", SMALL)]
UpValues = Annotated[Any, Strategy(f"{HEADS} {V} {R}", LARGE)]
WideQueries = Annotated[Any, Strategy(f"*batch T {HEADS * K}", LARGE)]
WideKeys = Annotated[Any, Strategy(f"*batch T {HEADS * K}", SMALL)]
WideValues = Annotated[Any, Strategy(f"*batch T {HEADS * V}", LARGE)]


def without_softmax(q: Any, k: Any, v: Any, *, scale: float | None = None, state: Any = None) -> tuple[Any, Any]:
    """Return linear attention, which is rational, so that exact numbers decide what up-projections do."""
    return linear_attention.parallel(q, k, v, state=state)


OVER_FORMS = [
    Instance("softmax.quadratic", {"form": softmax.quadratic}, {}, exact=False),
    Instance("linear_attention.parallel", {"form": without_softmax}, {}),
]
OVER_SIDES = [Instance(side, {"side": side}, {}) for side in ("expanded", "absorbed")]


@identity(
    "Every head attends with keys and values of its own, and its keys end with a part that all share",
    source=f"{DEEPSEEK}, eq. 10, 11, 17 and 18",
    exact=True,
    over=OVER_FORMS,
)
def heads_of_a_latent(q: HeadQueries, latents: Latents, W_UK: UpKeys, W_UV: UpValues, form: Any):
    o, state = latent.expanded(form, q, latents, W_UK, W_UV)
    xp, c, k_R, heads = namespace(q, latents), latents[..., :R], latents[..., R:], []
    for h in range(HEADS):
        heads.append(form(q[..., h, :, :], xp.concat([c @ W_UK[h].mT, k_R], axis=-1), c @ W_UV[h].mT)[0])
    return (o, state), (xp.stack(heads, axis=-3), latents)


@identity(
    "The up-projections of keys and values can be absorbed by the queries and by the output",
    source=f"{DEEPSEEK}, section 2.1.2, after eq. 11",
    exact=True,
    over=OVER_FORMS,
)
def up_projections_are_absorbed(q: HeadQueries, latents: Latents, W_UK: UpKeys, W_UV: UpValues, form: Any):
    return latent.absorbed(form, q, latents, W_UK, W_UV), latent.expanded(form, q, latents, W_UK, W_UV)


@identity(
    "The latents so far are all that a later token needs",
    source=f"{DEEPSEEK}, section 2.1.2: only c is cached, and k_R, section 2.1.3",
    over=OVER_SIDES,
)
def latents_are_the_state(q: HeadQueries, latents: Latents, W_UK: UpKeys, W_UV: UpValues, side: Any):
    xp, half, attend = namespace(q, latents), (q.shape[-2] + 1) // 2, getattr(latent, side)
    whole = attend(softmax.quadratic, q, latents, W_UK, W_UV)
    first, state = attend(softmax.quadratic, q[..., :half, :], latents[..., :half, :], W_UK, W_UV)
    rest, last = attend(softmax.quadratic, q[..., half:, :], latents[..., half:, :], W_UK, W_UV, state=state)
    return (xp.concat([first, rest], axis=-2), last), whole


@identity(
    "Where the latent holds the keys and values of all heads, it is multi-head attention",
    source=f"{DEEPSEEK}, section 2.1.2: a compression of what multi-head attention caches",
    exact=True,
    over=OVER_FORMS,
)
def latents_of_all_heads(q: WideQueries, k: WideKeys, v: WideValues, form: Any):
    xp = namespace(q, k, v)
    units = xp.eye(HEADS * (K + V), dtype=v.dtype)
    W_UK, W_UV = (
        xp.stack([units[start + h * size : start + (h + 1) * size] for h in range(HEADS)])
        for start, size in ((0, K), (HEADS * K, V))
    )
    o, _ = latent.expanded(form, multihead.split_heads(q, HEADS), xp.concat([k, v], axis=-1), W_UK, W_UV)
    return multihead.merge_heads(o), multihead.attend(form, q, k, v, heads=HEADS)[0]
