"""A training step of a small language model with softmax attention: loss, gradients, clipping, AdamW; float32.

Ours is `models.language.lm.LanguageModel` as anyone would train it; PyTorch's is `benchmarks.peers.torch_lm`. Both
start from the same weights, and their loss and every gradient must agree before a step is timed. Each process counts
its memory over its own first steps, the optimiser's state included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.workload import Implementation, Run, Workload

RATE, BETAS, DECAY, CLIP = 1e-3, (0.9, 0.95), 0.01, 1.0
SIZES = {"vocab": 256, "width": 128, "layers": 4, "heads": 4, "conv": 4, "batch": 8, "length": 256}


def tokens(vocab: int, batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random tokens (batch, length) and the token that follows each."""
    sequence = np.random.default_rng(0).integers(0, vocab, (batch, length + 1))
    return sequence[:, :-1], sequence[:, 1:]


def weights(*, vocab: int, width: int, layers: int, conv: int, hidden: int) -> dict[str, np.ndarray]:
    """Return the weights that every implementation starts from, by the names of our model."""
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (vocab, width)}
    for i in range(layers):
        layer = {
            "block_norm.weight": (width,),
            "block.qkv.weight": (3 * width, width),
            "block.conv.weight": (3 * width, conv),
            "block.conv.bias": (3 * width,),
            "block.output.weight": (width, width),
            "mlp_norm.weight": (width,),
            "mlp_in.weight": (2 * hidden, width),
            "mlp_out.weight": (width, hidden),
        }
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    shapes["norm.weight"] = (width,)
    rng = np.random.default_rng(1)
    arrays = {name: rng.normal(size=shape, scale=shape[-1] ** -0.5) for name, shape in shapes.items()}
    return {name: (w + (1 if "norm" in name else 0)).astype(np.float32) for name, w in arrays.items()}


def minigrad(*, vocab: int, width: int, layers: int, heads: int, conv: int, batch: int, length: int) -> Run:
    """Set up our model."""
    from models.language.config import Config
    from models.language.lm import LanguageModel

    config = Config(mixer="softmax", vocab=vocab, width=width, layers=layers, heads=heads, conv=conv)

    def initial_model() -> LanguageModel:
        model = LanguageModel(config, np.random.default_rng(0))
        hidden = model.layers[0].mlp_out.weight.shape[1]
        model.load_parameters(weights(vocab=vocab, width=width, layers=layers, conv=conv, hidden=hidden))
        return model

    return trained(initial_model, *tokens(vocab, batch, length))


def trained(initial_model: Callable[[], Any], inputs: np.ndarray, targets: np.ndarray) -> Run:
    """Return the training of one of our models, in a process that keeps freed memory as `models.train` does."""
    import minigrad as mg
    from minigrad import optim

    mg.keep_freed_memory()
    differentiate = mg.value_and_grad(lambda model: mg.cross_entropy(model(inputs)[0], targets))
    model, optimizer = initial_model(), optim.AdamW(RATE, betas=BETAS, weight_decay=DECAY)

    def step() -> None:
        _, gradients = differentiate(model)
        gradients, _ = optim.clip_by_global_norm(gradients, CLIP)
        optimizer.step(model, gradients)

    def results() -> dict[str, Any]:
        loss, gradients = differentiate(initial_model())
        return {"loss": loss, **gradients.named_parameters()}

    return Run(step, results)


def pytorch(
    attention: str, *, vocab: int, width: int, layers: int, heads: int, conv: int, batch: int, length: int
) -> Run:
    """Set up PyTorch's model with one of its two attentions."""
    import torch

    from benchmarks.peers import torch_lm

    inputs, targets = map(torch.tensor, tokens(vocab, batch, length))
    hidden = -(-8 * width // 3 // 8) * 8
    start = weights(vocab=vocab, width=width, layers=layers, conv=conv, hidden=hidden)

    def logits(parameters: dict[str, Any]) -> Any:
        attend = getattr(torch_lm, attention)
        return torch_lm.logits(parameters, inputs, layers=layers, heads=heads, attend=attend)

    return trained_in_pytorch(start, logits, targets)


def trained_in_pytorch(start: dict[str, np.ndarray], logits: Callable[[dict[str, Any]], Any], targets: Any) -> Run:
    """Return the training of parameters in PyTorch, given a function from them to logits."""
    import torch

    def initial_parameters() -> dict[str, torch.Tensor]:
        return {name: torch.tensor(w, requires_grad=True) for name, w in start.items()}

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits(parameters).flatten(0, 1), targets.flatten())

    parameters = initial_parameters()
    groups = [
        {"params": [p for p in parameters.values() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=BETAS, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss(parameters).backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()

    def results() -> dict[str, Any]:
        first = initial_parameters()
        value = loss(first)
        value.backward()
        return {"loss": value.detach(), **{name: p.grad for name, p in first.items()}}

    return Run(step, results)


def explicit(**sizes: int) -> Run:
    """Set up PyTorch with every attention score kept, as in our `quadratic`."""
    return pytorch("explicit", **sizes)


def sdpa(**sizes: int) -> Run:
    """Set up PyTorch with its own fused attention."""
    return pytorch("sdpa", **sizes)


def floor(parameters: dict[str, np.ndarray], tokens: int) -> dict[str, float]:
    """Return the least work of a step: 2 operations per weight of a matrix and token.

    Each product has two gradients. AdamW reads and writes parameter and both moments, and reads the gradient.
    """
    matrices = sum(
        w.size for name, w in parameters.items() if w.ndim > 1 and "conv" not in name and "A_log" not in name
    )
    return {"operations": 3 * 2.0 * tokens * matrices, "bytes": 7 * 4.0 * sum(w.size for w in parameters.values())}


def _floor(vocab: int, width: int, layers: int, heads: int, conv: int, batch: int, length: int) -> dict[str, float]:
    """Count the matrices, and attention: half of all scores, an exponential, 2 products of 2 d forward, 4 backward."""
    start = weights(vocab=vocab, width=width, layers=layers, conv=conv, hidden=-(-8 * width // 3 // 8) * 8)
    work, scores = floor(start, batch * length), layers * batch * heads * length * (length + 1) / 2
    products = 6 * scores * 2 * width / heads
    return {"exponentials": scores, "operations": work["operations"] + products, "bytes": work["bytes"]}


WORKLOADS = (
    Workload(
        name="lm_step",
        title="A training step: 4 layers, width 128, softmax attention, batch 8, length 256, float32, AdamW",
        sizes=SIZES,
        implementations=(
            Implementation("minigrad", minigrad),
            Implementation("PyTorch eager, explicit softmax", explicit, needs=("torch",)),
            Implementation("PyTorch eager, scaled_dot_product_attention", sdpa, needs=("torch",)),
        ),
        tolerance=1e-4,
        memory=True,
        floor=_floor(**SIZES),
    ),
)
