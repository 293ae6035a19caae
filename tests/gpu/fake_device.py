"""A fake device: NumPy's arrays, kernels on the emulator, a few of them on few tokens, and a clock for its events."""

import time
from types import SimpleNamespace

import numpy as np

from gpu import bench, check, device
from gpu.cases import CASES


class Event:
    """A CUDA event that reads the host's clock."""

    def record(self):
        self.at = time.perf_counter()

    def synchronize(self):
        pass


def elapsed(start, end):
    return 1e3 * (end.at - start.at)


POOL = SimpleNamespace(get_default_memory_pool=lambda: SimpleNamespace(free_all_blocks=lambda: None), full=np.full)
FAKE = SimpleNamespace(
    asarray=np.asarray,
    asnumpy=np.asarray,
    matmul=np.matmul,
    cuda=SimpleNamespace(Event=Event, get_elapsed_time=elapsed),
    **vars(POOL),
)


def few_tokens(case):
    """Return the case for keys of 8 and of 16 features, on a few tokens."""

    def draw(dtype, *, small, **options):
        arrays = case.draw(dtype, small=True, **options)
        return tuple(np.ascontiguousarray(x[:, :20]) for x in arrays)

    return case._replace(draw=draw, widths=(8, 16) if case.widths else ())


FEW = {name: few_tokens(CASES[name]) for name in ("scan", "softmax", "softmax, bfloat16")}
RATES = bench.Rates(bytes=1e9, flops=1e9, tensor_core_flops=1e9)


def install(monkeypatch):
    """Install the fake device for `check` and `bench`."""
    monkeypatch.setattr(device, "ready", lambda: FAKE)
    monkeypatch.setattr(device, "names", lambda: ["A Device 100"])
    for module in (bench, check):
        monkeypatch.setattr(module, "CASES", FEW)
    monkeypatch.setattr(check, "shutil", SimpleNamespace(which=lambda name: f"/bin/{name}"))
    rows, rates = bench.rows, bench.rates
    monkeypatch.setattr(bench, "rows", lambda *args, **options: rows(*args, **options, small=True))
    monkeypatch.setattr(bench, "rates", lambda xp, repeats: rates(xp, repeats, size=32))
