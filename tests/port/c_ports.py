"""Compile the ports in C, and call them through ctypes with the addresses of NumPy arrays."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("c")


@dataclass(frozen=True)
class Shapes:
    """The sizes that a port takes, and the axes of its arguments, of its output and of its state."""

    sizes: str
    arguments: str
    output: str
    state: str
    chunk: bool = False  # the size of chunks follows the sizes


SHAPES = {
    "linear_attention": Shapes("BTKV", "BTK BTK BTV", "BTV", "BKV"),
    "gated_linear_attention": Shapes("BTKV", "BTK BTK BTV BT", "BTV", "BKV", chunk=True),
    "delta_rule": Shapes("BTKV", "BTK BTK BTV BT", "BTV", "BKV"),
    "gated_delta_rule": Shapes("BTKV", "BTK BTK BTV BT BT", "BTV", "BVK"),
    "selective_scan": Shapes("BTDN", "BTD BTD DN BTN BTN D", "BTD", "BDN"),
    "ssd": Shapes("BTNP", "BTP BT - BTN BTN", "BTP", "BNP", chunk=True),
    "s4d": Shapes("BTDN", "BTD DN DN DN D D", "BTD", "BDN"),
}
NAMES = (*SHAPES, "attention")


def make(name, text):
    """Return a port and its backward function, compiled from the text of its source for float64 and float32."""
    libraries = {dtype: functools.cache(lambda real=real: library(text, real)) for dtype, real in REALS.items()}

    def call(function, sizes, *arrays):
        real = np.result_type(*(x for x in arrays if x is not None)).char in "fF"
        pointers = [None if x is None else ctypes.c_void_p(x.ctypes.data) for x in arrays]
        getattr(libraries["float32" if real else "float64"](), function)(*map(ctypes.c_long, sizes), *pointers)

    if name == "attention":
        return make_attention(call)
    shapes = SHAPES[name]

    def flat(arrays):
        """Return the arrays with one batch axis, their sizes by letter, and the shape of the batch."""
        first, axes = arrays[0], shapes.arguments.split()
        batch = first.shape[: first.ndim - len(axes[0]) + 1]
        flattened, sizes = [], {}
        for x, letters in zip(arrays, axes, strict=True):
            flattened.append(x.reshape(-1, *x.shape[len(batch) :]) if letters[0] == "B" else x)
            sizes.update(zip(letters.strip("-"), flattened[-1].shape, strict=True))
        return flattened, sizes, batch

    def forward(*arrays, state=None, chunk_size=64):
        flattened, sizes, batch = flat(arrays)
        dtype = np.result_type(*arrays)
        y = np.empty([sizes[x] for x in shapes.output], arrays[0].dtype)
        S = np.empty([sizes[x] for x in shapes.state], dtype)
        chunk = [chunk_size] if shapes.chunk else []
        call(name, [*(sizes[x] for x in shapes.sizes), *chunk], *flattened, state, y, S)
        return y.reshape(*batch, *y.shape[1:]), S.reshape(*batch, *S.shape[1:])

    def backward(*arrays, state=None, chunk_size=64):
        *arrays, dy, dS = arrays
        flattened, sizes, _ = flat(arrays)
        gradients = [np.zeros_like(x) for x in (*arrays, dS)]
        call(f"{name}_backward", [sizes[x] for x in shapes.sizes], *flattened, state, dy, dS, *gradients)
        return gradients

    forward.__name__, backward.__name__ = name, f"{name}_backward"
    return forward, backward


def make_attention(call):
    """Return softmax attention and its backward function: keys and values of the past are put before the others."""

    def join(k, v, past):
        return (k, v) if past is None else tuple(np.concatenate(x, axis=-2) for x in zip(past, (k, v), strict=True))

    def sizes(q, k, v):
        return [int(np.prod(q.shape[:-2])), q.shape[-2], *k.shape[-2:], v.shape[-1]]

    def attention(q, k, v, past=None):
        k, v = join(k, v, past)
        y = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
        call("attention", sizes(q, k, v), q, k, v, y)
        return y, (k, v)

    def attention_backward(q, k, v, dy, dk, dv, past=None):
        P = 0 if past is None else past[0].shape[-2]
        k, v = join(k, v, past)
        dq, dk, dv = np.zeros_like(q), dk.copy(), dv.copy()
        call("attention_backward", sizes(q, k, v), q, k, v, dy, dq, dk, dv)
        return [dq, dk[..., P:, :], dv[..., P:, :], dk[..., :P, :], dv[..., :P, :]]

    return attention, attention_backward


REALS = {"float64": "double", "float32": "float"}


def library(text, real):
    """Compile a source to a shared library, and load it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "port.so")
        command = [compiler(), "-x", "c", "-std=c11", "-shared", "-fPIC", f"-DREAL={real}", f"-I{FOLDER}", "-"]
        subprocess.run([*command, "-o", path, "-lm"], input=text, text=True, check=True)
        return ctypes.CDLL(str(path))  # which stays mapped when the file is gone


@functools.cache
def compiler():
    """Return the C compiler: CC, cc or gcc."""
    for name in (os.environ.get("CC", ""), "cc", "gcc"):
        if name and (path := shutil.which(name)):
            return path
    raise RuntimeError("no C compiler on PATH, which the ports in C need (Debian and Ubuntu: apt install gcc)")
