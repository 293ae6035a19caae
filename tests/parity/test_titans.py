"""Titans against titans-pytorch and fla, and test-time training against its formulas in PyTorch.

titans-pytorch's NeuralMemory, in float64: its inner loss is the mean over the V features, ours ½ of the sum, so θ is
2/V of its rate. Its gradients are taken at the weights it is given, so a batch is one call; keys, values and gates are
those that its projections make.

fla's momentum delta rule, in float32 inside: with p = k and β = 1 it is Titans with a matrix memory in batches of one
token, and its momentum is −S. Its two forms take their arguments in different orders, and the chunked one works with
logarithms of sums of decays in float32, and with β + 10⁻⁶ for β: three digits are left of its gradients.
"""

import numpy as np
import pytest

import minigrad as mg
from models.memory import titans, ttt

T, K = 12, 6


@pytest.fixture(scope="module")
def neural_memory(torch, titans_pytorch):
    """Make their memory of some depth, in float64, with the activation that ours has."""

    class Memory(torch.nn.Module):
        def __init__(self, depth):
            super().__init__()
            shapes = [(K, K)] if depth == 1 else [(K, 9), *[(9, 9)] * (depth - 2), (9, K)]
            self.weights = torch.nn.ParameterList(0.4 * torch.randn(shape) for shape in shapes)

        def forward(self, x):
            for i, weight in enumerate(self.weights):
                x = (torch.nn.functional.gelu(x, approximate="tanh") if i else x) @ weight
            return x

    def make(depth):
        torch.manual_seed(depth)
        options = {"pre_rmsnorm": False, "mem_model_norm_add_residual": False, "default_step_transform_max_lr": 0.5}
        return titans_pytorch.NeuralMemory(dim=K, chunk_size=1, heads=1, model=Memory(depth), **options).double()

    return make


def theirs(torch, memory, x, batch_size):
    """Return their weights after every token, with the keys, values and gates they are made of."""
    weights = state = None
    after = []
    for start in range(0, T, batch_size):
        updates, next_state = memory.store_memories(
            x[:, start : start + batch_size], weights, state, return_surprises=False
        )
        state = next_state.states
        weights = {name: w[:, -1] for name, w in updates.items()}
        after.append([w[:, 1:] for w in updates.values()])
    per_token = [torch.cat(parts, dim=1) for parts in zip(*after, strict=True)]
    gates = [
        memory.adaptive_step_transform(memory.to_adaptive_step(x))[..., 0, :] * 2 / K,
        torch.nn.functional.logsigmoid(memory.to_momentum(x))[0, ..., 0],
        torch.nn.functional.logsigmoid(-memory.to_decay_factor(x))[..., 0],
    ]
    return (
        per_token,
        [a.reshape(1, T, -1) for a in (memory.to_keys(x), memory.to_values(x))],
        [gate.reshape(1, T) for gate in gates],
    )


@pytest.mark.parametrize("form", [titans.recurrent, titans.chunkwise])
@pytest.mark.parametrize("batch_size", [1, 4, 5, 12])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_titans(form, batch_size, depth, neural_memory, torch, close):
    memory = neural_memory(depth)
    x = torch.tensor(np.random.default_rng(depth).normal(size=(1, T, K)))
    with torch.no_grad():
        first = tuple((w.numpy(),) for w in memory.memory_model.weights)
        per_token, (k, v), gates = theirs(torch, memory, x, batch_size)
    q = np.random.default_rng(9).normal(size=(1, T, K))
    arguments = (q, k.numpy(), v.numpy(), *(gate.numpy() for gate in gates), first)
    y, state = form(*arguments, batch_size=batch_size)
    for (ours,), weights in zip(state.memory, per_token, strict=True):
        close("memory at the end", ours, weights[:, -1].numpy(), 1e-12)
    z = torch.tensor(q)[..., None, :]
    for i, weights in enumerate(per_token):
        z = (torch.nn.functional.gelu(z, approximate="tanh") if i else z) @ weights
    close("what is read after each token", y, z[..., 0, :].numpy(), 1e-12)


@pytest.mark.parametrize("form", [titans.recurrent, titans.chunkwise])
@pytest.mark.parametrize(("which", "tolerance"), [("recurrent", 1e-5), ("chunk", 1e-3)])
@pytest.mark.parametrize("length", [1, 12, 70])
def test_momentum_delta_rule(form, which, tolerance, length, fla, torch, compare):
    """Outputs, memory, surprise, and gradients to all that goes in, from a memory and a surprise under way."""
    theirs = getattr(fla("momentum_delta_rule"), f"{which}_momentum_delta_rule_ref")
    rng, V = np.random.default_rng(length), K - 1
    q, k = rng.normal(size=(2, 2, 3, length, K))
    inputs = {"q": q, "k": k / np.linalg.norm(k, axis=-1, keepdims=True), "v": rng.normal(size=(2, 3, length, V))}
    inputs |= {"theta": rng.uniform(size=(2, 3, length))}
    inputs |= {name: np.log(rng.uniform(0.3, 1, size=(2, 3, length))) for name in ("log_eta", "log_decay")}
    inputs |= {"memory": rng.normal(size=(2, 3, K, V)), "surprise": rng.normal(size=(2, 3, K, V))}

    def ours(q, k, v, theta, log_eta, log_decay, memory, surprise):
        layers = ((memory,),)
        start = titans.State(layers, layers, ((surprise,),), 1)
        y, state = form(q * K**-0.5, k, v, theta, log_eta, log_decay, layers, state=start, batch_size=1)
        return y, state.memory[0][0], state.surprise[0][0]

    def their_code(q, k, v, theta, log_eta, log_decay, memory, surprise):
        arguments = {"q": q, "k": k, "v": v, "p": k, "log_alpha": log_decay, "log_mu": log_eta, "eta": theta}
        arguments = {name: x.transpose(1, 2) for name, x in (arguments | {"beta": torch.ones_like(theta)}).items()}
        o, (S, M) = theirs(**arguments, initial_S=memory, initial_M=-surprise, output_final_state=True)
        return o.transpose(1, 2), S, -M

    compare(ours, their_code, inputs, tolerance)


def official(torch, q, k, v, rates, layers, gamma, beta):
    """Compute a mini-batch as the code of Sun et al.: target v − k, output q + LN(z), rates[i, j] of i for j.

    Token by token, with PyTorch's gradients.
    """

    def norm(z):
        return torch.nn.functional.layer_norm(z, (K,), eps=1e-6) * gamma + beta

    def inside(x, *weights):
        z = x @ weights[0] + weights[1]
        for W, b in zip(weights[2::2], weights[3::2], strict=True):
            z = torch.nn.functional.gelu(z, approximate="tanh") @ W + b
        return z

    gradients = [
        torch.autograd.grad(
            ((norm(inside(k[j : j + 1], *layers)) - (v - k)[j : j + 1]) ** 2).sum() / 2, layers, create_graph=True
        )
        for j in range(len(k))
    ]
    rows = []
    for i in range(len(q)):
        now = [W - sum(rates[i, j] * gradients[j][n] for j in range(i + 1)) for n, W in enumerate(layers)]
        rows.append(q[i : i + 1] + norm(inside(q[i : i + 1], *now)))
    return torch.cat(rows), now


@pytest.mark.parametrize("form", [ttt.primal, ttt.dual])
@pytest.mark.parametrize("widths", [(K, K), (K, 4 * K, K)], ids=["TTT-Linear", "TTT-MLP"])
def test_official_conventions(form, widths, torch, compare):
    """Two mini-batches, η[i, j] = max(1/i + learned, 0) · σ(lr_j) / K, outputs and gradients to all that goes in."""
    rng, half = np.random.default_rng(3), T // 2
    shapes = [shape for a, b in zip(widths, widths[1:], strict=False) for shape in ((a, b), (1, b))]
    inputs = {name: rng.normal(size=(T, K)) for name in ("q", "k", "v")}
    inputs |= {"rate": rng.normal(size=T), "learned": 0.1 * rng.normal(size=half)}
    inputs |= {f"inner {i}": 0.3 * rng.normal(size=shape) for i, shape in enumerate(shapes)}
    inputs |= {"gamma": 1 + 0.1 * rng.normal(size=(1, K)), "beta": 0.1 * rng.normal(size=(1, K))}
    positions = 1 / np.arange(1.0, half + 1)

    def ours(q, k, v, rate, learned, *weights):
        *layers, gamma, beta = weights
        tau = mg.maximum(learned + positions, 0 * learned)
        layered = tuple(tuple(layers[i : i + 2]) for i in range(0, len(layers), 2))
        y, state = form(
            q,
            k,
            v,
            mg.sigmoid(rate) / K,
            ttt.Weights(layered, (gamma, beta)),
            tau=mg.concat([tau, tau], axis=0),
            batch_size=half,
        )
        return (y, *(x for layer in state.start for x in layer))

    def their_code(q, k, v, rate, learned, *weights):
        *layers, gamma, beta = weights
        share, y = torch.clamp(learned + torch.tensor(positions), min=0), []
        for part in (slice(0, half), slice(half, T)):
            rates = share[:, None] * torch.sigmoid(rate[part]) / K
            out, layers = official(torch, q[part], k[part], v[part], rates, layers, gamma, beta)
            y.append(out)
        return (torch.cat(y), *layers)

    compare(ours, their_code, inputs, 1e-10)
