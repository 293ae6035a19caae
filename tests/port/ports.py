"""Hand-written ports of one form each in PyTorch, JAX, Numba and C, with how each is declared to the kit.

The sources are files that run as they are; a slip is planted by replacing a text of one function.
"""

from pathlib import Path

from proofs.port import check
from tests.port import c_ports

FOLDER = Path(__file__).parent
FLA = {"layout": "b t h k", "scale": "1/sqrt(K)"}
LINEAR, DELTA = "memory.linear_attention.recurrent", "memory.delta_rule.recurrent"
GLA, GDR = "memory.gated_linear_attention.chunkwise", "memory.gated_delta_rule.chunkwise"
SCAN, SSD, SOFTMAX = "ssm.selective_scan.recurrent", "ssm.ssd.chunkwise", "attention.softmax.quadratic"

# framework → function → form, and the options of `check`
PORTS = {
    "torch": {
        "linear_attention": (LINEAR, {}),
        "gated_linear_attention": (GLA, {**FLA, "variant": "log_decay T K"}),
        "delta_rule": (DELTA, FLA),
        "chunk_delta_rule": ("memory.delta_rule.chunkwise", {}),
        "chunk_gated_delta_rule": (GDR, FLA),
        "selective_scan": (SCAN, {"layout": "b d t"}),
        "ssd": (SSD, {"layout": "b t h p", "state": "p n"}),
        "attention": (SOFTMAX, {"arguments": "q,k,v,past=state"}),
        "ttt_linear": ("memory.ttt.dual", {"arguments": "q,k,v,eta,W1,b1,mini_batch_size=chunk_size"}),
        "s4d": ("ssm.s4d.convolution", {}),
    },
    "jax": {
        "linear_attention": (LINEAR, {}),
        "gated_linear_attention": (GLA, {}),
        "delta_rule": (DELTA, {}),
        "chunk_gated_delta_rule": (GDR, {}),
        "selective_scan": ("ssm.selective_scan.associative", {}),
        "ssd": (SSD, {}),
        "attention": (SOFTMAX, {"arguments": "q,k,v,past=state"}),
        "s4d": ("ssm.s4d.recurrent", {}),
    },
    "numba": {
        "linear_attention": (LINEAR, {"layout": "b t k"}),
        "gated_linear_attention": (
            "memory.gated_linear_attention.recurrent",
            {"layout": "b t k", "variant": "log_decay T K"},
        ),
        "delta_rule": (DELTA, {"layout": "b t k"}),
        "lti": ("ssm.lti.recurrent", {"layout": "b t d", "variant": "A N N"}),
    },
    "c": {
        "linear_attention": (LINEAR, {"arguments": "q,k,v,state=state"}),
        "gated_linear_attention": (GLA, {"arguments": "q,k,v,g,state=state,chunk_size=chunk_size"}),
        "delta_rule": (DELTA, {"arguments": "q,k,v,beta,state=state"}),
        "gated_delta_rule": (
            "memory.gated_delta_rule.recurrent",
            {"arguments": "q,k,v,g,beta,state=state", "scale": "1/sqrt(K)", "state": "v k"},
        ),
        "selective_scan": (SCAN, {"arguments": "u,delta,A,B,C,D,state=state"}),
        "ssd": (SSD, {"arguments": "x,delta,A,B,C,state=state,chunk_size=chunk_size"}),
        "s4d": ("ssm.s4d.recurrent", {"arguments": "u,Lambda,B,C,D,delta,state=state"}),
        "attention": (SOFTMAX, {"arguments": "q,k,v,past=state"}),
    },
}


def source(framework, name):
    """Return the file that a port is in."""
    return FOLDER / "c" / f"{name}.c" if framework == "c" else FOLDER / f"{framework}_ports.py"


def slipped(framework, name, old, new):
    """Return the text of a port's file in which `old` is replaced by `new`.

    A file of Python begins with what its ports share, and after each port comes what it alone calls: `old` must be
    there or there, and once.
    """
    text = source(framework, name).read_text(encoding="utf-8")
    if framework == "c":
        starts, own = [], 0
    else:
        starts = sorted(text.index(f"def {other}(") for other in PORTS[framework])
        own = text.index(f"def {name}(")
    shared, end = min(starts, default=0), min((x for x in starts if x > own), default=len(text))
    count = text.count(old, 0, shared) + text.count(old, own, end)
    assert count == 1, f"{name} in {framework} has {count} times {old!r}, expected once"
    place = text.find(old, 0, shared) if old in text[:shared] else text.index(old, own)
    return text[:place] + new + text[place + len(old) :]


def make(framework, name, old="", new=""):
    """Return a port and its backward function, or None, with `old` replaced by `new` in its source."""
    text = slipped(framework, name, old, new) if old else source(framework, name).read_text(encoding="utf-8")
    if framework == "c":
        return c_ports.make(name, text)
    scope = {"__name__": f"{framework}_ports"}
    exec(compile(text, source(framework, name).name, "exec"), scope)
    return scope[name], scope.get(f"{name}_backward")


def run(framework, name, old="", new="", **options):
    """Check a port, with a slip."""
    form, declared = PORTS[framework][name]
    port, backward = make(framework, name, old, new)
    return check(port, form, backward=backward, **{**declared, **options})
