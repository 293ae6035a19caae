"""Values of arrays on a device are read once for each shape, by whatever form: reading waits for the device."""

from types import SimpleNamespace

import numpy as np
import pytest

from minigrad import bounds, compiled, values
from minigrad.values import checked_always, holds, on_device
from models.memory.inner import check_finite_loss
from models.sequences import check_rates
from tests.fake_cupy import Walled, asarray
from tests.forms.drawing import CHUNK, PLAIN, changed, tokens

CHECKING = ("lssl", "s4", "s4d", "selective_scan", "ssd", "titans", "ttt")


@pytest.fixture
def reads(monkeypatch):
    """Return a list to which each read of a value on the fake device is appended."""
    made = []
    for name in ("get", "__bool__", "__int__", "__float__", "__index__"):
        original = vars(Walled)[name]

        def read(self, original=original, name=name):
            made.append(name)
            return original(self)

        monkeypatch.setattr(Walled, name, read)
    look_up = Walled.__getattr__

    def attribute(self, name):
        if name in ("item", "tolist"):
            made.append(name)
        return look_up(self, name)

    monkeypatch.setattr(Walled, "__getattr__", attribute)
    monkeypatch.setattr(Walled, "__module__", "cupy")
    monkeypatch.setattr(values, "_passed", set())
    monkeypatch.setattr(compiled, "SCANS", {})  # no kernels: there is no device
    return made


@pytest.mark.parametrize("name", PLAIN)
def test_a_form_reads_values_once_for_each_shape(name, reads):
    form = PLAIN[name]

    def count(length):
        before = len(reads)
        form(changed(asarray, tokens(form, length)), None, CHUNK)
        return len(reads) - before

    checks = name.split(".")[0] in CHECKING
    assert (count(4) > 0) == checks
    assert count(4) == 0
    if name.split(".")[0] in ("selective_scan", "ssd", "titans", "ttt"):  # whose checked arguments have a time axis
        assert count(5) > 0
    with checked_always():
        assert (count(4) > 0) == checks
    assert count(4) == 0


def test_what_fails_is_not_taken_for_checked(reads):
    right, wrong = (asarray(np.full((2, 3), x)) for x in (1.0, -1.0))
    for _ in range(2):
        with pytest.raises(ValueError, match="delta holds .*, expected steps of at least 0"):
            check_rates("a form", wrong, -right)
    check_rates("a form", right, -right)
    check_rates("a form", wrong, -right)  # of a shape that has passed
    with checked_always(), pytest.raises(ValueError, match="delta holds .*, expected steps of at least 0"):
        check_rates("a form", wrong, -right)
    with pytest.raises(ValueError, match="delta holds"):
        check_rates("another form", wrong, -right)


def test_what_could_not_be_read_is_not_taken_for_checked(reads):
    def traced(x):
        raise TypeError("its values are not known")

    wrong = asarray(-np.ones(3))
    assert holds("a check", traced, wrong)
    assert not holds("a check", lambda x: x > 0, wrong)


def test_losses_and_indices_are_read_once_for_each_shape(reads):
    for _ in range(2):
        check_finite_loss("a form", asarray(np.ones((2, 3))), 0)
        bounds.check_indices("take", "tokens", asarray(np.arange(3)), 3, "a token")
    assert reads == ["__bool__", "__bool__"]
    with pytest.raises(FloatingPointError, match="the inner loss is nan at token 4"):
        check_finite_loss("a form", asarray(np.array([[1, 1], [1, np.nan]])), 3)
    with pytest.raises(IndexError, match=r"tokens\[1\] is 3, expected a token from 0 to 2"):
        bounds.check_indices("take", "tokens", asarray(np.array([0, 3])), 3, "a token")


def test_the_shapes_that_are_remembered_are_limited(reads, monkeypatch):
    monkeypatch.setattr(values, "_MOST", 3)
    for length in range(1, 8):
        assert holds("a check", lambda x: x > 0, asarray(np.ones(length)))
        assert len(values._passed) <= 3


def test_arrays_on_the_host_are_read_on_every_call():
    for x, expected in ((np.ones(3), True), (-np.ones(3), False), (1.0, True), (-1.0, False), (np.float32(-1), False)):
        assert [holds("a check", lambda x: x > 0, x) for _ in range(2)] == [expected] * 2


@pytest.mark.parametrize(
    ("module", "attributes", "expected"),
    [
        ("torch", {"device": SimpleNamespace(type="cpu")}, False),
        ("torch", {"device": SimpleNamespace(type="cuda")}, True),
        ("torch.nn.parameter", {"device": SimpleNamespace(type="mps")}, True),
        ("jaxlib._jax", {"devices": lambda _: [SimpleNamespace(platform="cpu")]}, False),
        ("jaxlib._jax", {"devices": lambda _: [SimpleNamespace(platform="gpu")]}, True),
        ("cupy", {}, True),
        ("numpy", {}, False),
    ],
)
def test_where_an_array_is(module, attributes, expected):
    assert on_device(type("Array", (), {"__module__": module, **attributes})()) == expected
