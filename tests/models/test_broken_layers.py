"""Copies of layers and activations, each with one thing wrong: a statement of the chapter fails for each."""

import dataclasses

import pytest

import minigrad as mg
from proofs import STATEMENTS
from proofs.checker import check_system, systems_of
from proofs.identities import layers as chapter
from proofs.identities import optimisers
from tests.copies import copy_of

PRIMITIVES = "minigrad.primitives"

FUNCTIONS = [
    # module, function, text, what stands there instead, the instance that fails, what is wrong
    ("memory.inner", "gelu", "0.044715", "0.0447", "activations[gelu_tanh]", "a rounded constant"),
    ("memory.inner", "gelu", "math.sqrt(2 / math.pi)", "2 / math.pi", "activations[gelu_tanh]", "the root missing"),
    ("memory.inner", "gelu_grad", "3 * CUBIC", "CUBIC", "activations[gelu_tanh_grad]", "the exponent not derived"),
    ("blocks.mlp", "quick_gelu", "1.702 * x", "1.7 * x", "activations[quick_gelu]", "another constant"),
    (
        f"{PRIMITIVES}.activations",
        "gelu",
        "xp.abs(x) * math.sqrt(0.5)",
        "xp.abs(x) * 0.7",
        "activations[gelu]",
        "another scale",
    ),
    (
        f"{PRIMITIVES}.activations",
        "silu",
        "x * t * t / (1 + k * k)",
        "x * t / (1 + k * k)",
        "activations[silu]",
        "σ(x/2)",
    ),
    ("blocks.block", "unit", "EPSILON = 1e-6", "EPSILON = 1e-5", "unit_norms[block]", "another ε"),
]
CHAPTER = [
    # what the chapter calls a module, its path, text, what stands there instead, the statement that fails, what is off
    ("rwkv7", "blocks.rwkv7", "1e-24", "1e-23", "unit_norms[rwkv7]", "another ε of RWKV-7"),
    ("inner", "memory.inner", "EPSILON = 1e-6", "EPSILON = 1e-5", "inner_norm", "another ε"),
    ("inner", "memory.inner", "- unit * _mean(g * unit)", "", "inner_norm", "a cotangent without the variance's part"),
    ("nn", "minigrad.nn", "eps: float = 1e-5", "eps: float = 1e-6", "norms", "RMSNorm's ε for LayerNorm"),
    ("nn", "minigrad.nn", "x - mean(x, axis=-1, keepdims=True)", "x", "norms", "a layer norm that does not centre"),
    (
        "nn",
        "minigrad.nn",
        "matmul(x, matrix_transpose(self.weight))\n        return y if",
        "matmul(x, matrix_transpose(self.weight))\n        return y if True or",
        "linear",
        "no bias",
    ),
    (
        "nn",
        "minigrad.nn",
        "recent[..., recent.shape[-2] - before :, :]",
        "recent[..., :before, :]",
        "short_convolution",
        "the first inputs kept",
    ),
]
NAMESPACE = [
    # a function of minigrad, its module, text, what stands there instead, the statement that fails, what is wrong
    ("var", f"{PRIMITIVES}.reductions", " - correction, 0", ", 0", "moments", "the correction ignored"),
    ("std", f"{PRIMITIVES}.reductions", " - correction, 0", ", 0", "moments", "the correction ignored"),
    ("logsumexp", f"{PRIMITIVES}.normalisers", "total)) + top", "total))", "logarithms_of_sums", "no maximum"),
    ("cross_entropy", f"{PRIMITIVES}.normalisers", "return -mean(", "return -2 * mean(", "logarithms_of_sums", "twice"),
]  # fmt: skip

OPTIMISERS = [
    # text, what stands there instead, the statement that fails, what is wrong
    ("1 / math.sqrt(1 - b2**self.count)", "1", "adamw[others]", "no correction of the second moment"),
    ("scratch += self.eps\n        np.divide", "np.divide", "adamw[others]", "no ε"),
    ("eps: float = 1e-8", "eps: float = 1e-6", "adamw[defaults]", "another default"),
    ("p *= 1 - lr * self.weight_decay", "p *= 1 - self.weight_decay", "adamw[others]", "a decay that ignores the rate"),
    ("v *= self.momentum", "v *= 1 - self.momentum", "momentum", "μ for 1 − μ"),
    ("max_norm / total", "max_norm / total**2", "clipping", "the squared norm"),
    ("max(1, steps - warmup)", "max(1, steps)", "cosine_schedule", "an end that is too late"),
]


def fails(statement):
    """Return whether a statement fails in its first number system because two numbers differ."""
    result = check_system(statement, systems_of(statement)[0])
    return result.status == "failed" and "on the left" in result.failure


@pytest.mark.parametrize(
    ("module", "function", "text", "instead", "name", "wrong"), FUNCTIONS, ids=[row[4] for row in FUNCTIONS]
)
def test_a_broken_function_is_caught(module, function, text, instead, name, wrong):
    statement = STATEMENTS[f"layers.{name}"]
    ours = getattr(copy_of(module, text, instead), function)
    assert fails(dataclasses.replace(statement, fixed={**statement.fixed, "ours": ours})), wrong


@pytest.mark.parametrize(
    ("name", "module", "text", "instead", "statement", "wrong"), CHAPTER, ids=[row[5] for row in CHAPTER]
)
def test_a_broken_layer_is_caught(name, module, text, instead, statement, wrong, monkeypatch):
    monkeypatch.setattr(chapter, name, copy_of(module, text, instead))
    assert fails(dataclasses.replace(STATEMENTS[f"layers.{statement}"])), wrong


@pytest.mark.parametrize(
    ("name", "module", "text", "instead", "statement", "wrong"), NAMESPACE, ids=[row[0] for row in NAMESPACE]
)
def test_a_broken_moment_or_sum_is_caught(name, module, text, instead, statement, wrong, monkeypatch):
    monkeypatch.setattr(mg, name, getattr(copy_of(module, text, instead), name))
    assert fails(dataclasses.replace(STATEMENTS[f"layers.{statement}"])), wrong


@pytest.mark.parametrize(("text", "instead", "name", "wrong"), OPTIMISERS, ids=[row[3] for row in OPTIMISERS])
def test_a_broken_optimiser_is_caught(text, instead, name, wrong, monkeypatch):
    monkeypatch.setattr(optimisers, "optim", copy_of("minigrad.optim", text, instead))
    assert fails(dataclasses.replace(STATEMENTS[f"optimisers.{name}"])), wrong
