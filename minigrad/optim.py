"""Optimisers, which update a module's arrays in place, gradient clipping and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from minigrad.namespace import to_numpy
from minigrad.nn import Module
from minigrad.pytree import arrays_of, map_arrays
from minigrad.transforms import value_and_grad


class _Optimiser:
    """Base of optimisers: `slots` names the state arrays of each parameter. A negative rate raises ValueError."""

    slots: tuple[str, ...] = ()

    def __init__(self, lr: float):
        if not lr >= 0:
            raise ValueError(f"{type(self).__name__}: got lr = {lr}, expected lr ≥ 0")
        self.lr, self.count = lr, 0
        self.state: dict[str, np.ndarray] = {}

    def step(self, module: Module, grads: Module, *, lr: float | None = None) -> None:
        """Update every parameter that has a gradient; lr overrides the optimiser's own for this step."""
        self.count += 1
        gradients = grads.named_parameters()
        for name, p in module.named_parameters().items():
            if name in gradients:
                for slot in self.slots:
                    if f"{slot}.{name}" not in self.state:
                        self.state[f"{slot}.{name}"] = np.zeros_like(p)
                self.update(
                    p, gradients[name], [self.state[f"{s}.{name}"] for s in self.slots], self.lr if lr is None else lr
                )

    def minimise(
        self,
        module: Module,
        loss: Callable[..., Any],
        *,
        lr: float | None = None,
        clip: float | None = None,
        fixed: Collection[str] = (),
    ) -> float:
        """Make a step that lowers loss(module), and return what it was.

        `clip` is the largest global norm of the gradients; parameters whose names are `fixed` are not trained, and
        their gradients do not count.
        """
        value, grads = value_and_grad(loss)(module)
        grads.remove_parameters(fixed)
        if clip is not None:
            grads, _ = clip_by_global_norm(grads, clip)
        self.step(module, grads, lr=lr)
        return float(value)

    def update(self, p: Any, g: Any, state: list, lr: float) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the state that resumes training exactly."""
        return {**self.state, "step": np.array(self.count)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` returned. Raises ValueError when the step is missing."""
        if "step" not in state:
            raise ValueError(f"{type(self).__name__}: the state holds {sorted(state)[:3]}…, expected a member 'step'")
        self.count = int(state["step"])
        self.state = {name: a.copy() for name, a in state.items() if name != "step"}


class SGD(_Optimiser):
    """v ← μ v + g;  p ← p − lr v."""

    slots = ("v",)

    def __init__(self, lr: float, *, momentum: float = 0.0):
        super().__init__(lr)
        self.momentum = momentum

    def update(self, p: Any, g: Any, state: list, lr: float) -> None:
        (v,) = state
        v *= self.momentum
        v += g
        p -= lr * v


class AdamW(_Optimiser):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  p ← p − lr (m̂/(√v̂ + ε) + λ p),
    with m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ). Vectors (norms, biases) are not decayed.
    """

    slots: tuple[str, ...] = ("m", "v")

    def __init__(
        self, lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
    ):
        super().__init__(lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay

    def update(self, p: Any, g: Any, state: list, lr: float) -> None:
        m, v = state
        b1, b2 = self.betas
        scratch = np.multiply(g, 1 - b1, out=np.empty_like(m))  # an array, also where NumPy makes a number of g
        m *= b1
        m += scratch
        np.multiply(g, g, out=scratch)
        scratch *= 1 - b2
        v *= b2
        v += scratch
        np.sqrt(v, out=scratch)
        scratch *= 1 / math.sqrt(1 - b2**self.count)
        scratch += self.eps
        np.divide(m, scratch, out=scratch)
        scratch *= lr / (1 - b1**self.count)
        if self.weight_decay and p.ndim > 1:
            p *= 1 - lr * self.weight_decay
        p -= scratch


class AveragedAdamW(AdamW):
    """AdamW that keeps the parameters of every `spacing`-th step, the last five times, for their mean.

    The mean of the last checkpoints is what Vaswani et al. 2017 evaluate (section 6.1).
    """

    slots = ("m", "v", "kept0", "kept1", "kept2", "kept3", "kept4")

    def __init__(self, lr: float, *, spacing: int, **options: Any):
        super().__init__(lr, **options)
        self.spacing = spacing

    def update(self, p: Any, g: Any, state: list, lr: float) -> None:
        moments, kept = state[:2], state[2:]
        super().update(p, g, moments, lr)
        if self.count % self.spacing == 0:
            kept[self.count // self.spacing % len(kept)][...] = p

    def averaged(self, module: Module) -> Module:
        """Return a module of the mean parameters, or the module itself before any were kept."""
        kept = self.slots[2:]
        times = min(self.count // self.spacing, len(kept))
        if times == 0:
            return module
        result = map_arrays(lambda array: array, module)
        # slots that were not written to hold zeros
        means = {name: sum(self.state[f"{x}.{name}"] for x in kept) / times for name in module.named_parameters()}
        result.load_parameters(means)
        return result


def clip_by_global_norm(grads: Any, max_norm: float) -> tuple[Any, float]:
    """Return the gradients scaled so that their global Euclidean norm is at most max_norm, and the norm before.

    Raises ValueError when the norm is NaN or infinite: such a step would destroy every parameter.
    """
    squares = [np.vdot(g, g).real for g in arrays_of(grads)]
    total = math.sqrt(sum(to_numpy(np.stack(squares)).tolist())) if squares else 0.0  # one transfer from a GPU
    if not math.isfinite(total):
        raise ValueError(f"clip_by_global_norm: the gradients' norm is {total}, expected a finite number")
    if total <= max_norm:
        return grads, total
    return map_arrays(lambda g: g * (max_norm / total), grads), total


def cosine(step: int, *, steps: int, warmup: int, peak: float, floor: float = 0.0) -> float:
    """Return a learning rate that rises linearly during warm-up, then decays to the floor along half a cosine.

    (Loshchilov and Hutter 2017, eq. 5)
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return floor + (peak - floor) * (1 + math.cos(math.pi * progress)) / 2


def inverse_sqrt(step: int, *, warmup: int, width: int) -> float:
    """Return the learning rate d^−½ min(s^−½, s · warmup^−3/2), with d the width and s = step + 1.

    It rises linearly during warm-up, to (d · warmup)^−½, and then falls as s^−½ (Vaswani et al. 2017, eq. 3).
    """
    s = step + 1
    return width**-0.5 * min(s**-0.5, s * warmup**-1.5)
