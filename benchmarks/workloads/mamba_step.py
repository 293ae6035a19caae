"""A training step of a small Mamba: loss, gradients, clipping, AdamW; float32.

Ours is `models.language.mamba.MambaModel`. JAX's is `benchmarks.peers.jax_mamba`, the whole step compiled; mamba.py's
is its own stack of blocks between an embedding and a tied head. All start from the same weights, and their loss and
every gradient must agree before a step is timed.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.workload import Implementation, Run, Workload
from benchmarks.workloads.lm_step import BETAS, CLIP, DECAY, RATE, floor, tokens, trained, trained_in_pytorch

SIZES = {"vocab": 256, "width": 128, "layers": 4, "states": 16, "conv": 4, "batch": 8, "length": 256}


def weights(*, vocab: int, width: int, layers: int, states: int, conv: int) -> dict[str, np.ndarray]:
    """Return the weights that every implementation starts from, by the names of our model (Mamba, section 3.6)."""
    rng = np.random.default_rng(1)
    inner, rank = 2 * width, -(-width // 16)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape, scale=shape[-1] ** -0.5)

    arrays: dict[str, np.ndarray] = {"embeddings.weight": normal(vocab, width)}
    for i in range(layers):
        steps = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), inner))
        layer = {
            "norm.weight": 1 + 0.1 * rng.normal(size=width),
            "mixer.in_proj.weight": normal(2 * inner, width),
            "mixer.conv1d.weight": normal(inner, conv),
            "mixer.conv1d.bias": 0.1 * rng.normal(size=inner),
            "mixer.x_proj.weight": normal(rank + 2 * states, inner),
            "mixer.dt_proj.weight": normal(inner, rank),
            "mixer.dt_proj.bias": np.log(np.expm1(steps)),
            "mixer.A_log": np.log(np.broadcast_to(np.arange(1.0, states + 1), (inner, states))),
            "mixer.D": np.ones(inner),
            "mixer.out_proj.weight": normal(width, inner),
        }
        arrays |= {f"layers.{i}.{name}": w for name, w in layer.items()}
    arrays["norm_f.weight"] = 1 + 0.1 * rng.normal(size=width)
    return {name: w.astype(np.float32) for name, w in arrays.items()}


def minigrad(*, batch: int, length: int, **sizes: int) -> Run:
    """Set up our model."""
    from models.blocks.mamba import MambaConfig
    from models.language.mamba import MambaModel

    width, layers, vocab = sizes["width"], sizes["layers"], sizes["vocab"]
    config = MambaConfig(width, 2 * width, sizes["states"], rank=-(-width // 16), conv=sizes["conv"])

    def initial_model() -> MambaModel:
        model = MambaModel(config, np.random.default_rng(0), vocab=vocab, layers=layers)
        model.load_parameters(weights(**sizes))
        return model

    return trained(initial_model, *tokens(vocab, batch, length))


def mamba_py(*, batch: int, length: int, **sizes: int) -> Run:
    """Set up mamba.py's blocks; its convolution keeps (channels, 1, W) with the present last."""
    import torch
    from mambapy.mamba import Mamba, MambaConfig, RMSNorm

    class LanguageModel(Mamba):
        def __init__(self) -> None:
            config = MambaConfig(sizes["width"], sizes["layers"], d_state=sizes["states"], d_conv=sizes["conv"])
            super().__init__(config)
            self.embeddings = torch.nn.Embedding(sizes["vocab"], sizes["width"])
            self.norm_f = RMSNorm(sizes["width"], config.rms_norm_eps)

        def forward(self, tokens: Any) -> Any:
            return self.norm_f(super().forward(self.embeddings(tokens))) @ self.embeddings.weight.T

    inputs, targets = map(torch.tensor, tokens(sizes["vocab"], batch, length))
    model = LanguageModel()

    def logits(parameters: dict[str, Any]) -> Any:
        converted = {name: w.flip(1)[:, None] if "conv1d.weight" in name else w for name, w in parameters.items()}
        return torch.func.functional_call(model, converted, (inputs,))

    return trained_in_pytorch(weights(**sizes), logits, targets)


def jax(*, batch: int, length: int, **sizes: int) -> Run:
    """Set up JAX, a step compiled whole, the memory of its parameters and moments used again."""
    import jax
    from jax import numpy as jnp

    from benchmarks.peers import jax_mamba

    inputs, targets = map(jnp.asarray, tokens(sizes["vocab"], batch, length))
    differentiate = jax.value_and_grad(functools.partial(jax_mamba.loss, layers=sizes["layers"]))

    def initial_parameters() -> dict[str, Any]:
        return {name: jnp.asarray(w) for name, w in weights(**sizes).items()}

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def advance(p: Any, m: Any, v: Any, count: Any) -> Any:
        _, gradients = differentiate(p, inputs, targets)
        return jax_mamba.updated(p, m, v, count, gradients, rate=RATE, betas=BETAS, decay=DECAY, clip=CLIP)

    state = [
        initial_parameters(),
        *({name: jnp.zeros_like(w) for name, w in initial_parameters().items()} for _ in range(2)),
    ]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        state[:] = jax.block_until_ready(advance(*state, count))

    def results() -> dict[str, Any]:
        loss, gradients = jax.jit(differentiate)(initial_parameters(), inputs, targets)
        return {"loss": loss, **gradients}

    return Run(step, results)


def _floor(*, batch: int, length: int, **sizes: int) -> dict[str, float]:
    """Count the matrices, and the scan: two exponentials, 17 operations a channel, state and token."""
    work = floor(weights(**sizes), batch * length)
    scanned = sizes["layers"] * batch * length * 2 * sizes["width"] * sizes["states"]
    return {**work, "exponentials": 2.0 * scanned, "operations": work["operations"] + 17.0 * scanned}


WORKLOADS = (
    Workload(
        name="mamba_step",
        title="A training step: Mamba, 4 layers, width 128, batch 8, length 256, float32, AdamW",
        sizes=SIZES,
        implementations=(
            Implementation("minigrad", minigrad, needs=("numba",)),
            Implementation("JAX, compiled whole", jax, needs=("jax",)),
            Implementation("mamba.py, PyTorch", mamba_py, needs=("mambapy", "torch")),
        ),
        tolerance=1e-3,
        memory=True,
        floor=_floor(**SIZES),
    ),
)
