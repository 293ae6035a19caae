"""Mixers by name: each block wraps one mechanism in what its paper puts around it."""

from .block import Block, BlockConfig, BlockState
from .delta_rule import DeltaRuleBlock
from .gated_delta_rule import GatedDeltaRuleBlock
from .gated_linear_attention import GatedLinearAttentionBlock
from .linear_attention import LinearAttentionBlock
from .lssl import LSSLBlock
from .mamba import MambaBlock
from .mamba2 import Mamba2Block
from .rnn import RNNBlock
from .s4 import S4Block
from .s4d import S4DBlock
from .softmax import SoftmaxBlock
from .titans import TitansBlock, TitansMACBlock, TitansMAGBlock, TitansMALBlock
from .ttt import TTTLinearBlock, TTTMLPBlock

MIXERS: dict[str, type[Block]] = {
    "softmax": SoftmaxBlock,
    "linear_attention": LinearAttentionBlock,
    "gated_linear_attention": GatedLinearAttentionBlock,
    "delta_rule": DeltaRuleBlock,
    "gated_delta_rule": GatedDeltaRuleBlock,
    "ttt_linear": TTTLinearBlock,
    "ttt_mlp": TTTMLPBlock,
    "titans": TitansBlock,
    "titans_mac": TitansMACBlock,
    "titans_mag": TitansMAGBlock,
    "titans_mal": TitansMALBlock,
    "mamba": MambaBlock,
    "mamba2": Mamba2Block,
    "lssl": LSSLBlock,
    "s4": S4Block,
    "s4d": S4DBlock,
    "rnn": RNNBlock,
}

__all__ = ["MIXERS", "Block", "BlockConfig", "BlockState"]
