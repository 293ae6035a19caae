"""Functions of other libraries, called as they are, with what `proofs/port/conventions.toml` declares of them.

Each function here takes `load`, which loads modules, and returns a port. It fills in options, and states or arguments
that the other library has in another form, which the note of its row says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Load:
    """The modules of other libraries: `fla("delta_rule")`, `transformers("mamba")`, `module("mambapy.mamba")`."""

    fla: Callable[[str], ModuleType]
    transformers: Callable[[str], ModuleType]
    module: Callable[[str], ModuleType]


def fla_attention(load: Load) -> Any:
    return load.fla("attn").naive_parallel_attn


def fla_linear_attention_recurrent(load: Load) -> Any:
    return partial(load.fla("linear_attn").naive_recurrent_linear_attn, output_final_state=True)


def fla_linear_attention_chunk(load: Load) -> Any:
    return load.fla("linear_attn").naive_chunk_linear_attn


def fla_simple_gla_recurrent(load: Load) -> Any:
    return load.fla("simple_gla").naive_recurrent_simple_gla


def fla_simple_gla_chunk(load: Load) -> Any:
    return partial(load.fla("simple_gla").naive_chunk_simple_gla, output_final_state=True)


def fla_simple_gla_parallel(load: Load) -> Any:
    return load.fla("simple_gla").naive_parallel_simple_gla


def fla_gla(load: Load) -> Any:
    return partial(load.fla("gla").naive_recurrent_gla, output_final_state=True)


def fla_delta_rule_recurrence(load: Load) -> Any:
    return load.fla("delta_rule").delta_rule_recurrence


def fla_delta_rule_chunkwise(load: Load) -> Any:
    return load.fla("delta_rule").delta_rule_chunkwise


def fla_delta_rule_parallel(load: Load) -> Any:
    return partial(load.fla("delta_rule").delta_rule_parallel, BM=4, BN=2)


def fla_gated_delta_rule_recurrent(load: Load) -> Any:
    return partial(load.fla("gated_delta_rule").naive_recurrent_gated_delta_rule, output_final_state=True)


def fla_gated_delta_rule_chunk(load: Load) -> Any:
    return partial(load.fla("gated_delta_rule").naive_chunk_gated_delta_rule, output_final_state=True)


def fla_kda_recurrent(load: Load) -> Any:
    return partial(load.fla("kda").naive_recurrent_kda, output_final_state=True)


def fla_kda_chunk(load: Load) -> Any:
    return partial(load.fla("kda").naive_chunk_kda, output_final_state=True)


def fla_momentum_delta_rule(load: Load) -> Any:
    return _momentum(load, "recurrent_momentum_delta_rule_ref")


def fla_momentum_delta_rule_chunk(load: Load) -> Any:
    return _momentum(load, "chunk_momentum_delta_rule_ref", chunk_size=4)


def _momentum(load: Load, name: str, **options: int) -> Any:
    """Return the momentum delta rule as Titans with a matrix memory: p = k, β = 1."""
    function, torch = getattr(load.fla("momentum_delta_rule"), name), load.module("torch")

    def port(q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W: Any) -> Any:
        initial = W.expand(q.shape[0], q.shape[2], *W.shape)
        gates = {"log_alpha": log_decay, "log_mu": log_eta, "eta": theta, "beta": torch.ones_like(theta)}
        return function(q, k, v, p=k, **gates, initial_S=initial, output_final_state=True, **options)[0]

    return port


def fla_dplr_recurrence(load: Load) -> Any:
    return load.fla("generalized_delta_rule/dplr").dplr_recurrence


def fla_dplr_chunkwise(load: Load) -> Any:
    return load.fla("generalized_delta_rule/dplr").dplr_chunkwise


def transformers_gated_delta_rule_recurrent(load: Load) -> Any:
    return _plain(load.transformers("qwen3_next").torch_recurrent_gated_delta_rule)


def transformers_gated_delta_rule_chunk(load: Load) -> Any:
    return _plain(load.transformers("qwen3_next").torch_chunk_gated_delta_rule)


def transformers_kda_recurrent(load: Load) -> Any:
    function = _plain(load.transformers("kimi_linear").recurrent_kimi_delta_attention)
    return lambda q, k, v, g, beta, initial_state: function(q, k, v, g, beta, initial_state=initial_state)


def transformers_kda_chunk(load: Load) -> Any:
    return _plain(load.transformers("kimi_linear").chunk_kimi_delta_attention)


def _plain(function: Any) -> Any:
    """Return a function of transformers in PyTorch where a kernel would take its place, with its final state."""
    return partial(inspect.unwrap(function), output_final_state=True)


def transformers_rwkv4(load: Load) -> Any:
    function = load.transformers("rwkv").rwkv_linear_attention_cpu

    def port(w: Any, u: Any, k: Any, v: Any, state: Any) -> Any:
        if state is not None:
            mean, lse = state
            state = mean, mean * 0 + 1, lse
        y, (numerator, denominator, exponent) = function(w.log(), u, k, v, state=state, return_state=True)
        return y, (numerator / denominator, exponent + denominator.log())

    return port


def transformers_mamba(load: Load) -> Any:
    return partial(inspect.unwrap(load.transformers("mamba").mamba_selective_scan), return_last_state=True)


def transformers_mamba2(load: Load) -> Any:
    function = inspect.unwrap(load.transformers("mamba2").mamba2_chunk_scan)

    def port(x: Any, delta: Any, A: Any, B: Any, C: Any, chunk_size: int, initial_states: Any) -> Any:
        rates = A.expand(x.shape[2])
        return function(x, delta, rates, B, C, chunk_size, initial_states=initial_states, return_final_states=True)

    return port


def mambapy_parallel(load: Load) -> Any:
    return partial(load.module("mambapy.mamba").MambaBlock.selective_scan, None)


def mambapy_sequential(load: Load) -> Any:
    function = load.module("mambapy.mamba").MambaBlock.selective_scan_seq

    def port(u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
        block = SimpleNamespace(config=SimpleNamespace(d_inner=A.shape[0], d_state=A.shape[1]))
        return function(block, u, delta, A, B, C, D)

    return port


def titans_memory(load: Load) -> Any:
    """Return a port whose keys, values and gates are given in place of what the module projects its input to."""
    torch, memories = load.module("torch"), load.module("titans_pytorch")

    class Matrix(torch.nn.Module):
        def __init__(self, size: int):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(size, size))

        def forward(self, x: Any) -> Any:
            return x @ self.weight

    class Given(torch.nn.Module):
        value: Any

        def forward(self, _: Any) -> Any:
            return self.value

    def port(q: Any, k: Any, v: Any, theta: Any, log_eta: Any, log_decay: Any, W: Any) -> Any:
        shape, size, batch = q.shape, q.shape[-1], q.shape[:2].numel()
        q, k, v = (x.reshape(batch, -1, size) for x in (q, k, v))
        theta, log_eta, log_decay = (x.reshape(batch, -1) for x in (theta, log_eta, log_decay))
        options = {"pre_rmsnorm": False, "mem_model_norm_add_residual": False, "adaptive_step_transform": lambda x: x}
        memory = memories.NeuralMemory(dim=size, chunk_size=1, heads=1, model=Matrix(size), **options).to(q.dtype)
        given = {
            name: Given() for name in ("to_keys", "to_values", "to_adaptive_step", "to_momentum", "to_decay_factor")
        }
        for name, module in given.items():
            setattr(memory, name, module)
        (name,) = memory.memory_model_parameter_names
        weights, state, y = {name: W.expand(batch, *W.shape)}, None, []
        for start in range(0, q.shape[1], 4):
            span = slice(start, start + 4)
            given["to_keys"].value, given["to_values"].value = k[:, span], v[:, span]
            given["to_adaptive_step"].value = theta[:, span] * size / 2  # of a mean over the features
            given["to_momentum"].value = logit(log_eta[:, span])[None, ..., None]
            given["to_decay_factor"].value = -logit(log_decay[:, span])[..., None]
            updates, after = memory.store_memories(k[:, span], weights, state, return_surprises=False)
            weights, state = {name: updates[name][:, -1]}, after.states
            y.append((q[:, span, None] @ updates[name][:, 1:])[..., 0, :])
        return torch.cat(y, dim=1).reshape(shape)

    def logit(log_x: Any) -> Any:
        """Return what the sigmoid of is x."""
        return log_x - torch.log(-torch.expm1(log_x))

    return port
