"""Kimi Linear: layers of Kimi Delta Attention and of latent attention, `models.language.kimi_linear`.

Two vocabularies are read, which may be mixed: that of the published repository, with the layers and sizes of Kimi Delta
Attention in `linear_attn_config`, numbered from 1, and `first_k_dense_replace`; and that of transformers, with
`layer_types`, `mlp_layer_types` and `linear_…`. Where both say something they must agree.

The files, which transformers writes too, have the names of the published repository: experts one by one, with w1 as
gate, w3 up and w2 down, where the model has gate and up as one matrix; three convolutions (channels, 1, W) with the
present last, where the model has one (channels, W) with the present first; the forget gate's parameters beside the
projections, A_log as (1, 1, H, 1).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.blocks.experts import ExpertsConfig, Routing
from models.blocks.kda import KimiDeltaAttentionConfig
from models.blocks.latent_attention import LatentAttentionConfig
from models.language.kimi_linear import Attention, KimiLinearModel, Mlp
from models.published.architecture import Shapes, TextArchitecture
from models.published.fields import Fields

DEFAULTS: dict[str, Any] = {
    "vocab_size": 163840,
    "hidden_size": 2304,
    "num_hidden_layers": 27,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    # Kimi Delta Attention
    "linear_head_dim": 128,
    "linear_num_heads": 32,
    "linear_conv_kernel_dim": 4,
    # latent attention
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "attention_bias": False,
    "mla_use_nope": True,
    # MLPs
    "intermediate_size": 9216,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "moe_intermediate_size": 1024,
    "num_experts": 256,
    "num_shared_experts": 1,
    "num_experts_per_token": 8,
    "num_expert_group": 1,
    "topk_group": 1,
    "use_grouped_topk": True,
    "moe_router_activation_func": "sigmoid",
    "moe_renormalize": True,
    "routed_scaling_factor": 2.446,
    "num_nextn_predict_layers": 0,
}
"""Defaults of the configuration class of transformers, by the names that files have; and for options of the published
repository that transformers does not read, the value that its model is of.
"""
IRRELEVANT = frozenset(
    (
        # without positions
        "max_position_embeddings model_max_length rope_parameters rope_scaling rope_theta "
        # computed from others
        "head_dim qk_head_dim "
        # training, and how the work is divided
        "attention_dropout output_router_logits pretraining_tp"
    ).split()
)
JOINED = (
    ("conv1d", ("q_conv1d", "k_conv1d", "v_conv1d")),
    ("gate_up_proj", ("gate_proj", "up_proj")),
    ("gate_up_proj", ("w1", "w3")),
    ("down_proj", ("w2",)),
)
"""Arrays of the model, and those of a file that they consist of, by the last part of their names."""
FIRST = {parts[0]: (joined, parts) for joined, parts in JOINED}
OTHERS = {part for _, parts in JOINED for part in parts[1:]}
MOST_LAYERS = 10_000  # so that lists of their kinds have room


@dataclass(frozen=True, kw_only=True)
class KimiLinear(TextArchitecture):
    """The attention and the MLP of every layer, and the norms between them."""

    prefix = "model."
    embedding = "embed_tokens.weight"

    width: int
    layers: tuple[tuple[Attention, Mlp], ...]
    eps: float

    def shapes(self) -> Shapes:
        """Yield what a file must hold."""
        width = self.width
        yield "embed_tokens.weight", (self.vocab, width)
        for i, (attention, mlp) in enumerate(self.layers):
            yield f"layers.{i}.input_layernorm.weight", (width,)
            arrays = _delta(attention) if isinstance(attention, KimiDeltaAttentionConfig) else _latent(attention)
            yield from ((f"layers.{i}.self_attn.{name}", shape) for name, shape in arrays)
            yield f"layers.{i}.post_attention_layernorm.weight", (width,)
            if isinstance(mlp, ExpertsConfig):
                yield from _experts(f"layers.{i}.mlp", mlp)
            else:
                yield from _swiglu(f"layers.{i}.mlp", width, mlp)
        yield "norm.weight", (width,)
        if not self.tied:
            yield "lm_head.weight", (self.vocab, width)

    def build(self, rng: np.random.Generator) -> KimiLinearModel:
        """Return a new model."""
        return KimiLinearModel(self.layers, rng, vocab=self.vocab, width=self.width, eps=self.eps, tied=self.tied)

    def parameters(self, arrays: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Yield every array under the model's name, those of `JOINED` as one."""
        for name in arrays:
            module, _, last = name.removesuffix(".weight").rpartition(".")
            if last in FIRST:
                joined, parts = FIRST[last]
                array = np.concatenate([arrays[f"{module}.{part}.weight"] for part in parts])
                yield f"{module}.{joined}.weight", array[:, 0, ::-1] if joined == "conv1d" else array
            elif last == "A_log":
                yield f"{module}.forget_gate.A_log", arrays[name].reshape(-1)
            elif last in ("f_a_proj", "f_b_proj", "dt_bias"):
                yield name.replace(".self_attn.", ".self_attn.forget_gate."), arrays[name]
            elif last not in OTHERS:
                yield name, arrays[name]

    def name(self, in_file: str) -> str | None:
        """Return a name of transformers, which has one for either MLP, and writes the published one for both."""
        return in_file.removeprefix(self.prefix).replace(".block_sparse_moe.", ".mlp.")


def read(path: Path, config: Mapping[str, Any]) -> KimiLinear:
    """Return the architecture in a config with the `model_type` kimi_linear."""
    fields = Fields(path, config, DEFAULTS)
    listed = fields.get("linear_attn_config")
    if listed is not None and not isinstance(listed, dict):
        raise fields.error("linear_attn_config", "a JSON object")
    linear = Fields(path, listed or {}, prefix="linear_attn_config.")
    fields.one_of("hidden_act", "silu", "swish")
    width, eps = fields.size("hidden_size"), fields.number("rms_norm_eps")
    delta = KimiDeltaAttentionConfig(
        width,
        _size_in_either(fields, "linear_num_heads", linear, "num_heads"),
        _size_in_either(fields, "linear_head_dim", linear, "head_dim"),
        conv=_size_in_either(fields, "linear_conv_kernel_dim", linear, "short_conv_kernel_size"),
        eps=eps,
    )
    heads = fields.size("num_attention_heads")
    fields.one_of("num_key_value_heads", heads, None)
    latent = LatentAttentionConfig(
        width,
        heads,
        fields.size("qk_nope_head_dim"),
        fields.size("qk_rope_head_dim", least=0),
        fields.size("v_head_dim"),
        fields.size("kv_lora_rank"),
        query_rank=None if fields.get("q_lora_rank") is None else fields.size("q_lora_rank"),
        bias=fields.flag("attention_bias"),
    )
    hidden = fields.size("moe_intermediate_size")
    experts = ExpertsConfig(width, hidden, hidden * fields.size("num_shared_experts"), _routing(fields))
    dense, count = fields.size("intermediate_size"), fields.size("num_hidden_layers", least=0)
    if count > MOST_LAYERS:
        raise fields.error("num_hidden_layers", f"at most {MOST_LAYERS}")
    layers = tuple(
        (delta if attention == "linear_attention" else latent, dense if mlp == "dense" else experts)
        for attention, mlp in zip(_attention_types(fields, linear, count), _mlp_types(fields, count), strict=True)
    )
    vocab, tied = fields.size("vocab_size"), fields.flag("tie_word_embeddings")
    linear.refuse_others()
    fields.refuse_others(IRRELEVANT)
    return KimiLinear(vocab=vocab, tied=tied, width=width, layers=layers, eps=eps)


def _size_in_either(fields: Fields, name: str, linear: Fields, other: str) -> int:
    """Return a size that `linear_attn_config` may hold under another name."""
    if other not in linear.given:
        return fields.size(name)
    size = linear.size(other)
    if name in fields.given and fields.size(name) != size:
        raise fields.error(name, f"linear_attn_config.{other} = {size}")
    fields.get(name)
    return size


def _routing(fields: Fields) -> Routing:
    experts = fields.size("num_experts")
    groups = fields.divisor("num_expert_group", experts, "experts")
    if experts // groups < 2:
        raise fields.error("num_expert_group", f"groups of at least 2 of {experts} experts")
    kept, count = fields.size("topk_group"), fields.size("num_experts_per_token")
    if kept > groups:
        raise fields.error("topk_group", f"at most {groups} groups")
    if count > kept * experts // groups:
        raise fields.error("num_experts_per_token", f"at most {kept * experts // groups} experts in {kept} groups")
    renormalise, factor = fields.flag("moe_renormalize"), fields.number("routed_scaling_factor")
    return Routing(experts, count, groups, kept, renormalise, factor)


def _attention_types(fields: Fields, linear: Fields, count: int) -> list[str]:
    """Return "linear_attention" or "full_attention" for each layer."""
    delta, full = linear.get("kda_layers"), linear.get("full_attn_layers")
    types = None
    if delta is not None or full is not None:
        numbers = [*(delta if isinstance(delta, list) else [None]), *(full if isinstance(full, list) else [None])]
        if len(numbers) != count or any(number not in numbers for number in range(1, count + 1)):
            wrong = "full_attn_layers" if isinstance(delta, list) else "kda_layers"
            raise linear.error(wrong, f"kda_layers and full_attn_layers to list each of 1 to {count} once")
        types = ["linear_attention" if number in delta else "full_attention" for number in range(1, count + 1)]
    given = _types(fields, "layer_types", count, "linear_attention", "full_attention")
    if given is not None and types is not None and given != types:
        raise fields.error("layer_types", "the layers of linear_attn_config")
    return given or types or ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in range(count)]


def _mlp_types(fields: Fields, count: int) -> list[str]:
    """Return "dense" or "sparse" for each layer."""
    first = fields.size("first_k_dense_replace", least=0)
    types = ["dense" if i < first else "sparse" for i in range(count)]
    given = _types(fields, "mlp_layer_types", count, "dense", "sparse")
    if given is not None and "first_k_dense_replace" in fields.given and given != types:
        raise fields.error("mlp_layer_types", f"dense layers up to first_k_dense_replace = {first}")
    return types if given is None else given


def _types(fields: Fields, name: str, count: int, *choices: str) -> list[str] | None:
    types = fields.get(name)
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != count or not all(kind in choices for kind in types):
        raise fields.error(name, f"{count} of {' and '.join(choices)}, one for each of num_hidden_layers")
    return types


def _delta(block: KimiDeltaAttentionConfig) -> Shapes:
    width, heads, channels = block.width, block.heads, block.channels
    inner = heads * channels
    for x in "qkv":
        yield f"{x}_proj.weight", (inner, width)
        yield f"{x}_conv1d.weight", (inner, 1, block.conv)
    yield "f_a_proj.weight", (channels, width)
    yield "f_b_proj.weight", (inner, channels)
    yield "dt_bias", (inner,)
    yield "A_log", (1, 1, heads, 1)
    yield "b_proj.weight", (heads, width)
    yield "g_a_proj.weight", (channels, width)
    yield "g_b_proj.weight", (inner, channels)
    yield "o_norm.weight", (channels,)
    yield "o_proj.weight", (width, inner)


def _latent(block: LatentAttentionConfig) -> Shapes:
    width, heads, per_query = block.width, block.heads, block.channels + block.shared
    projections = {"kv_a_proj_with_mqa": (block.rank + block.shared, width), "o_proj": (width, heads * block.values)}
    if block.query_rank is None:
        yield "q_proj.weight", (heads * per_query, width)
    else:
        projections["q_a_proj"] = (block.query_rank, width)
        yield "q_a_layernorm.weight", (block.query_rank,)
        yield "q_b_proj.weight", (heads * per_query, block.query_rank)
    for name, (outputs, inputs) in projections.items():
        yield f"{name}.weight", (outputs, inputs)
        if block.bias:
            yield f"{name}.bias", (outputs,)
    yield "kv_a_layernorm.weight", (block.rank,)
    yield "kv_b_proj.weight", (heads * (block.channels + block.values), block.rank)


def _experts(name: str, mlp: ExpertsConfig) -> Shapes:
    width, hidden, experts = mlp.width, mlp.hidden, mlp.routing.experts
    yield f"{name}.gate.weight", (experts, width)
    yield f"{name}.gate.e_score_correction_bias", (experts,)
    for i in range(experts):
        yield f"{name}.experts.{i}.w1.weight", (hidden, width)
        yield f"{name}.experts.{i}.w3.weight", (hidden, width)
        yield f"{name}.experts.{i}.w2.weight", (width, hidden)
    yield from _swiglu(f"{name}.shared_experts", width, mlp.shared_hidden)


def _swiglu(name: str, width: int, hidden: int) -> Shapes:
    yield f"{name}.gate_proj.weight", (hidden, width)
    yield f"{name}.up_proj.weight", (hidden, width)
    yield f"{name}.down_proj.weight", (width, hidden)
