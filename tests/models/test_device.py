"""Models on a device: here one that is as closed to NumPy as a GPU's arrays are, and runs wherever the tests run."""

from dataclasses import replace

import numpy as np
import pytest

import minigrad as mg
from gpu import device as gpu_device
from gpu.launch import DeviceMemoryError, SharedMemoryError
from minigrad.engine import unwrap
from minigrad.pytree import arrays_of
from models import device, objectives
from models.blocks import MIXERS
from models.blocks.mamba import MambaConfig
from models.blocks.mamba2 import Mamba2Config
from models.blocks.rwkv4 import RWKV4Config
from models.blocks.rwkv7 import RWKV7Config
from models.errors import UserError
from models.kernels import dispatch
from models.language.config import Config
from models.language.lm import LanguageModel, generate
from models.language.mamba import MambaModel
from models.language.rwkv import RWKVModel
from models.log import read as read_log
from models.train import Run, Training, load_model
from models.vision import rotation_ttt
from tests.fake_cupy import Walled, asarray

TINY = Run(width=16, heads=2, layers=1, batch=2, length=12, steps=6, evaluate_every=3, warmup=2, seed=5)


@pytest.fixture(autouse=True)
def walled(monkeypatch):
    """Add a device of that name without raw kernels, so that `fused` is its reference."""
    monkeypatch.setitem(device.DEVICES, "walled", lambda: asarray)
    monkeypatch.setattr(dispatch, "on_device", lambda x: isinstance(unwrap(x), Walled))
    for name, kernel in dispatch.KERNELS.items():
        monkeypatch.setitem(dispatch.KERNELS, name, kernel._replace(cuda=None))


fresh = np.random.default_rng


def finish(training):
    for _ in training.steps():
        pass
    training.save()
    return training


@pytest.mark.parametrize(
    "run",
    [
        *(replace(TINY, mixer=mixer) for mixer in MIXERS),
        replace(TINY, task="digits"),
        Run(task="dates", width=8, heads=2, layers=1, batch=2, steps=4, evaluate_every=2, warmup=20, dropout=0.2),
    ],
    ids=[*MIXERS, "digits", "dates"],
)
def test_every_model_trains_where_its_arrays_are(tmp_path, run):
    there, here = (finish(Training.start(run, tmp_path / name, name)) for name in ("walled", "cpu"))
    assert all(isinstance(x, Walled) for x in arrays_of((there.model, there.optimizer.state)) if x.shape)
    for actual, expected in zip(read_log(there.log), read_log(here.log), strict=True):
        for name in actual.keys() & {"loss", "norm", "held_out_loss"}:
            assert actual[name] == pytest.approx(expected[name], rel=1e-3)
    model, _ = load_model(there.checkpoint)
    assert all(type(x) is np.ndarray for x in arrays_of(model))


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_model_generates_there(mixer, temperature):
    model, prompt = LanguageModel(Config(vocab=11, width=16, layers=1, heads=2, mixer=mixer), fresh(0)), np.arange(7)
    there, here = (
        list(generate(device.move(model, position), prompt, tokens=5, temperature=temperature, rng=fresh(1)))
        for position in ("walled", "cpu")
    )
    assert there == here


@pytest.mark.parametrize(
    "model",
    [
        MambaModel(MambaConfig(width=8, inner=16, states=3), fresh(0), vocab=11, layers=2),
        MambaModel(Mamba2Config(width=8, inner=16, heads=4, states=3), fresh(0), vocab=11, layers=2, tied=False),
        RWKVModel(RWKV4Config(width=8, inner=6, hidden=20), fresh(0), vocab=11, layers=2),
        RWKVModel(RWKV7Config(8, 2, 20, 3, 3, 3, value_rank=3), fresh(0), vocab=11, layers=2),
    ],
    ids=["mamba", "mamba2", "rwkv4", "rwkv7"],
)
def test_published_models_run_there(model):
    tokens = fresh(1).integers(0, 11, (2, 9))
    for actual, expected in zip(arrays_of(device.move(model, "walled")(tokens)), arrays_of(model(tokens)), strict=True):
        np.testing.assert_allclose(actual.get(), expected, rtol=1e-4, atol=1e-6)


def test_images_are_learnt_at_test_time_there():
    weights, images = rotation_ttt.Weights(fresh(0)), fresh(1).uniform(0, 1, (3, 64)).astype(np.float32)
    there = rotation_ttt.adapted(device.move(weights, "walled"), asarray(images), 2, 0.01)
    for actual, expected in zip(
        arrays_of(there), arrays_of(rotation_ttt.adapted(weights, images, 2, 0.01)), strict=True
    ):
        np.testing.assert_allclose(actual.get(), expected, rtol=1e-4, atol=1e-6)


def test_a_run_goes_on_on_another_device(tmp_path):
    straight = finish(Training.start(TINY, tmp_path / "straight"))
    for steps, name in ((2, "walled"), (4, "cpu"), (6, "walled")):
        training = (
            Training.resume(tmp_path / "run", name) if steps > 2 else Training.start(TINY, tmp_path / "run", name)
        )
        for _ in training.steps(until=steps):
            pass
        training.save()
    assert [record["step"] for record in read_log(training.log)] == [0, *range(1, 7)]
    for actual, expected in zip(arrays_of(training.model), arrays_of(straight.model), strict=True):
        np.testing.assert_allclose(actual.get(), expected, atol=1e-3)


def test_the_wall_stands():
    """The stand-in raises for a NumPy array among its arguments, as CuPy does."""
    x = asarray(np.ones(3))
    for mixed in (
        lambda: x + np.ones(3),
        lambda: np.ones(3) * x,
        lambda: np.asarray(x),
        lambda: np.stack([x, np.ones(3)]),
    ):
        with pytest.raises(TypeError):
            mixed()
    assert isinstance(np.exp(x) + 1, Walled)
    assert isinstance(mg.zeros(3) + mg.Tensor(x), mg.Tensor)  # what a function makes of nothing is brought along


OWN, SHARED = "Out of memory allocating 1,024 bytes", "titans_forward: K = 64 needs 1,024 bytes: take smaller widths"


@pytest.mark.parametrize("work", ["value_and_grad", "accuracy"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError(OWN), f"step 1: {OWN} (try a smaller --batch, --length, --width or --layers)"),
        (DeviceMemoryError(OWN), f"step 1: {OWN} (try a smaller --batch, --length, --width or --layers)"),
        (SharedMemoryError(SHARED), f"step 1: {SHARED}"),
    ],
)
def test_no_room_is_one_line_and_the_weights_stay(tmp_path, monkeypatch, work, error, message):
    def full(*_, **__):
        raise error

    training = Training.start(TINY, tmp_path)
    before = [x.copy() for x in arrays_of(training.model)]
    with monkeypatch.context() as patch, pytest.raises(UserError) as excinfo:
        patch.setattr(mg if work == "value_and_grad" else objectives, work, full)
        finish(training)
    assert str(excinfo.value) == message
    for left, right in zip(arrays_of(training.model), before, strict=True):
        np.testing.assert_array_equal(left, right)
    assert finish(training).step == TINY.steps


def test_without_a_gpu_nothing_is_begun(tmp_path, monkeypatch):
    def missing():
        raise gpu_device.MissingError(gpu_device.DRIVER)

    monkeypatch.setattr(gpu_device, "ready", missing)
    with pytest.raises(UserError, match=r"^device cuda: no NVIDIA driver \(libcuda.so.1\): install it from") as excinfo:
        Training.start(TINY, tmp_path / "run", "cuda")
    assert "\n" not in str(excinfo.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"^device: expected one of cpu, cuda, walled, got 'tpu'"):
        Training.start(TINY, tmp_path / "run", "tpu")


def test_a_tensor_is_shown_wherever_it_is():
    x = np.arange(3.0)
    assert repr(mg.Tensor(asarray(x))) == repr(mg.Tensor(x)) == "Tensor([0., 1., 2.])"
