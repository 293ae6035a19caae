"""Plans of the experiments, what their runs share, what each variant changes and the seeds; and of the timings.

With `kind` a run is also evaluated at `lengths`, of `sequences` each: numbers of pairs or of tokens. Heads divide the
width, so that K = width / heads: a memory of H heads holds H K² = width K numbers, whatever the parameters.
"""

from dataclasses import asdict
from typing import Any

from models.run import Run
from models.study.jobs import Job

SEED = 0
SEEDS = [0, 1, 2]
CONTROLS = 5  # what a job of test-time training's controls measures
WIDTH = 64  # of recall and of text
RECALL = {
    "task": "recall",
    "width": WIDTH,
    "layers": 1,
    "batch": 32,
    "pairs": (8, 16, 32),
    "steps": 800,
    "evaluate_every": 100,
    "rate": 5e-3,
}
TEXT = {
    "task": "text",
    "width": WIDTH,
    "layers": 2,
    "heads": 4,
    "batch": 8,
    "length": 128,
    "steps": 600,
    "evaluate_every": 100,
}

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "capacity": {
        "kind": "recall",
        "run": RECALL,
        "variants": {
            **{
                f"{mixer}-K{K}": {"mixer": mixer, "heads": WIDTH // K}
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
    "lengths": {
        "kind": "needle",
        "run": {
            "task": "needle",
            "width": 32,
            "layers": 1,
            "heads": 2,
            "length": 128,
            "batch": 32,
            "steps": 1500,
            "evaluate_every": 250,
            "rate": 1e-2,
            "decay": 0.0,
        },
        "variants": {
            "softmax-rotary": {"mixer": "softmax", "positions": "rotary"},
            "softmax-none": {"mixer": "softmax", "positions": "none"},
            "rnn": {"mixer": "rnn"},
            "lstm": {"mixer": "lstm"},
        },
        "lengths": [256, 512, 1024, 2048],
        "sequences": 32,
        "seeds": SEEDS,
    },
    "selected": {
        "run": {
            "task": "selective_copying",
            "mixer": "mamba",
            "width": 48,
            "layers": 2,
            "length": 48,
            "batch": 32,
            "steps": 1000,
            "evaluate_every": 100,
            "rate": 3e-3,
        },
        "variants": {f"mamba-{variant}": {"variant": variant} for variant in ("none", "delta", "BC", "all")},
        "seeds": SEEDS,
    },
    "language": {  # widths that give as many parameters, but for 5%
        "run": TEXT,
        "variants": {
            "softmax": {"mixer": "softmax"},
            "s4d": {"mixer": "s4d", "width": 120},
            "mamba": {"mixer": "mamba", "width": 80},
            "mamba2": {"mixer": "mamba2", "width": 80},
        },
        "seeds": SEEDS,
    },
    "audio": {  # widths that give as many parameters, but for 5%
        "kind": "tones",
        "run": {
            "task": "tones",
            "layers": 2,
            "heads": 1,
            "length": 512,
            "batch": 16,
            "steps": 300,
            "evaluate_every": 50,
            "rate": 1e-2,
        },
        "variants": {
            "s4": {"mixer": "s4", "width": 38},
            "s4d": {"mixer": "s4d", "width": 54},
            "lstm": {"mixer": "lstm", "width": 36},
            "softmax": {"mixer": "softmax", "width": 32, "heads": 2},
        },
        "lengths": [256],  # half the rate
        "sequences": 512,
        "seeds": SEEDS,
    },
    "targets": {
        "run": {**TEXT, "mixer": "ttt_linear"},
        "variants": {f"ttt_linear-{variant}": {"variant": variant} for variant in ("learned", "input", "random")},
        "seeds": SEEDS,
    },
    "inner-batches": {
        "run": {**TEXT, "mixer": "ttt_linear"},
        "variants": {f"ttt_linear-b{size}": {"chunk_size": size} for size in (1, 4, 16, 64, TEXT["length"])},
        "seeds": SEEDS,
    },
    "equal-state": {  # N = width K of a matrix, 8 width K of an MLP that is four times as wide inside
        "run": {**RECALL, "steps": 500},
        "variants": {
            "ttt_linear-N2048": {"mixer": "ttt_linear", "heads": 2},
            "ttt_mlp-N2048": {"mixer": "ttt_mlp", "heads": 16},
            "ttt_linear-N4096": {"mixer": "ttt_linear", "heads": 1},
            "ttt_mlp-N4096": {"mixer": "ttt_mlp", "heads": 8},
        },
        "seeds": SEEDS,
    },
    "retrievals": {
        "run": {**TEXT, "mixer": "softmax"},
        "variants": {f"softmax-r{count}": {"variant": str(count)} for count in (1, 2, 4)},
        "seeds": SEEDS,
    },
}

TIMINGS: dict[str, dict[str, Any]] = {
    "steps": {
        "config": {"width": 128, "layers": 1, "heads": 4, "vocab": 64},
        "training": [512],
        "generation": [],
        "repeats": {"training": 3, "generation": 0},
        "mixers": ["linear_attention", "delta_rule", "ttt_linear", "ttt_mlp", "titans"],
        "batches": [1, 4, 64, 512],  # of TTT-Linear, beside its usual 16
    },
    "scans": {
        "forms": ["fused", "associative", "recurrent"],
        "states": [4, 16, 64],
        "length": 512,
        "channels": 64,
        "repeats": 3,
    },
    "throughput": {
        "configs": {  # with as many parameters, but for 5%
            "softmax": {"mixer": "softmax", "width": 64, "layers": 2, "heads": 4, "vocab": 128},
            "mamba": {"mixer": "mamba", "width": 80, "layers": 2, "heads": 4, "vocab": 128},
        },
        "training": [],
        "generation": [16, 256, 4096],
        "repeats": {"training": 0, "generation": 15},
        "batches": [1, 16],
    },
}


def experiment(name: str, sizes: dict[str, Any]) -> list[Job]:
    """Return the trainings of an experiment: each variant with each seed, evaluated at its other lengths, if any."""
    jobs = []
    for variant, own in sizes["variants"].items():
        for seed in sizes["seeds"]:
            called, run = f"{name}-{variant}-{seed}", {**sizes["run"], **own}
            if "kind" in sizes:
                jobs.append(extrapolation(called, sizes["kind"], {**sizes, "run": run}, seed))
            else:
                jobs.append(training(called, run, seed))
    return jobs


def controls(sizes: dict[str, Any]) -> list[Job]:
    """Return the controls of test-time training, a job a seed."""
    own = {name: value for name, value in sizes.items() if name != "seeds"}
    return [Job(f"controls-{seed}", "controls", {"seed": seed, **own}, CONTROLS) for seed in sizes["seeds"]]


def timings(sizes: dict[str, dict[str, Any]]) -> list[Job]:
    """Return the timings of training steps, of the forms of the selective scan, and of tokens by batch."""
    steps, scans, throughput = sizes["steps"], sizes["scans"], sizes["throughput"]
    timed: dict[str, dict[str, Any]] = {mixer: {"mixer": mixer} for mixer in steps["mixers"]}
    timed |= {f"ttt_linear-b{size}": {"mixer": "ttt_linear", "chunk_size": size} for size in steps["batches"]}
    parts = ("training", "generation", "repeats")
    jobs = []
    for name, config in timed.items():
        settings = {"config": {**steps["config"], **config}, **{part: steps[part] for part in parts}}
        jobs.append(Job(f"step-{name}", "growth", settings, len(steps["training"])))
    for form in scans["forms"]:
        settings = {"form": form, **{name: value for name, value in scans.items() if name != "forms"}}
        jobs.append(Job(f"scan-{form}", "scan", settings, len(scans["states"])))
    for mixer, config in throughput["configs"].items():
        for batch in throughput["batches"]:
            settings = {"config": config, "batch": batch, **{part: throughput[part] for part in parts}}
            jobs.append(Job(f"throughput-{mixer}-{batch}", "growth", settings, len(throughput["generation"])))
    return jobs


def extrapolation(name: str, kind: str, sizes: dict[str, Any], seed: int = SEED) -> Job:
    """Return a training that is evaluated at other lengths."""
    run = Run(seed=seed, **sizes["run"])
    settings = {"run": asdict(run), "lengths": sizes["lengths"], "sequences": sizes["sequences"]}
    return Job(name, kind, settings, run.steps + len(sizes["lengths"]))


def training(name: str, settings: dict[str, Any], seed: int = SEED) -> Job:
    """Return a training of these settings."""
    run = Run(seed=seed, **settings)
    return Job(name, "train", asdict(run), run.steps)
