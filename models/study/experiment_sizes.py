"""Sizes of the experiments: what their runs share, what each variant changes, and the seeds.

With `kind` a run is also evaluated at `lengths`, of `sequences` each: numbers of pairs or of tokens. Heads divide the width,
so that K = width / heads: a memory of H heads holds H K² = width K numbers, whatever the parameters.
"""

from typing import Any

SEEDS = [0, 1, 2]
RECALL = {
    "task": "recall",
    "width": 64,
    "layers": 1,
    "batch": 32,
    "pairs": (8, 16, 32),
    "steps": 800,
    "evaluate_every": 100,
    "rate": 5e-3,
}
TEXT = {
    "task": "text",
    "width": 64,
    "layers": 2,
    "heads": 4,
    "batch": 8,
    "length": 128,
    "steps": 600,
    "evaluate_every": 100,
}

SIZES: dict[str, dict[str, Any]] = {
    "capacity": {
        "kind": "recall",
        "run": RECALL,
        "variants": {
            **{
                f"{mixer}-K{K}": {"mixer": mixer, "heads": RECALL["width"] // K}
                for mixer in ("linear_attention", "delta_rule")
                for K in (4, 16, 64)
            },
            "rnn": {"mixer": "rnn"},
            "lstm": {"mixer": "lstm"},
            "softmax": {"mixer": "softmax"},
        },
        "lengths": [48, 64],
        "sequences": 128,
        "seeds": SEEDS,
    },
}
