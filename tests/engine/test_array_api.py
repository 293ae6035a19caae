"""The Python array API standard: names, signatures and dtypes, with array-api-strict as the oracle."""

import inspect
import re
from pathlib import Path

import array_api_strict as strict
import numpy as np
import pytest

import minigrad as mg
from tests.standard import DTYPES, FUNCTIONS, NAMES, VERSION, find

DOCS = Path(__file__).parents[2] / "docs" / "ARRAY_API.md"


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert find(mg, name) is not None or name == "newaxis"


def test_attributes_of_arrays():
    """A Tensor has what an array of the standard has, but for what the documentation lists with a reason."""
    array = type(strict.ones(1))
    standard = {
        name for name in dir(array) if not name.startswith("_") or (name[:2] == "__" and name not in dir(object))
    }
    rows = re.findall(r"^\| (`.*`) \| (\S.{20,}) \|$", DOCS.read_text().partition("## Left out")[2], re.MULTILINE)
    listed = {name for names, _ in rows for name in re.findall(r"`(\w+)`", names)}
    assert {name for name in standard if not hasattr(mg.Tensor, name)} == listed & standard


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures(name):
    """Positional parameters in their place, options by the standard's names and with its defaults."""
    ours = list(inspect.signature(find(mg, name)).parameters.values())
    by_name = {p.name: p for p in ours}
    for position, p in enumerate(inspect.signature(find(strict, name)).parameters.values()):
        if p.kind is p.VAR_POSITIONAL:
            assert ours[position].kind is p.VAR_POSITIONAL
            continue
        if p.kind is p.KEYWORD_ONLY:
            mine = by_name[p.name]
            assert mine.kind is not p.POSITIONAL_ONLY and mine is ours[position]
        else:
            mine = ours[position]
            assert mine.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            assert p.kind is p.POSITIONAL_ONLY or mine.name == p.name
        if p.default is p.empty or "Undef" in type(p.default).__name__:
            continue
        assert mine.default == p.default


def test_constants_and_dtypes():
    assert mg.__array_api_version__ == VERSION
    for name in ("e", "inf", "nan", "newaxis", "pi"):
        assert repr(getattr(mg, name)) == repr(getattr(strict, name))
    for name in DTYPES:
        dtype = np.dtype(getattr(mg, name))
        assert dtype.name == name
        for kind in ("bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating"):
            assert mg.isdtype(dtype, kind) == strict.isdtype(getattr(strict, name), kind)
        assert mg.isdtype(dtype, (dtype, "bool"))
        for other in DTYPES:
            given_, expected = (dtype, np.dtype(other)), (getattr(strict, name), getattr(strict, other))
            assert mg.can_cast(*given_) == np.can_cast(*given_)
            try:
                theirs = strict.result_type(*expected)
            except TypeError:
                continue
            assert mg.result_type(*given_) == theirs._np_dtype
            assert mg.result_type(mg.Tensor(np.ones(1, dtype)), np.ones(1, other)) == theirs._np_dtype
    for name in ("float32", "float64", "complex64", "complex128"):
        ours, theirs = mg.finfo(getattr(mg, name)), strict.finfo(getattr(strict, name))
        for part in ("bits", "eps", "max", "min", "smallest_normal"):
            assert getattr(ours, part) == getattr(theirs, part)
            assert type(getattr(ours, part)) is type(getattr(theirs, part))
        assert ours.dtype == theirs.dtype._np_dtype == mg.finfo(mg.Tensor(np.ones(1, name))).dtype
    for name in DTYPES[1:9]:
        ours, theirs = mg.iinfo(getattr(mg, name)), strict.iinfo(getattr(strict, name))
        assert (ours.bits, ours.max, ours.min, ours.dtype) == (
            theirs.bits,
            theirs.max,
            theirs.min,
            theirs.dtype._np_dtype,
        )


def test_namespace_info():
    info = mg.Tensor(np.ones(1)).__array_namespace__(api_version=VERSION).__array_namespace_info__()
    assert info.default_dtypes()["real floating"] == np.float64 and info.default_device() == "cpu"
    assert set(info.dtypes(kind="bool")) == {"bool"} and set(DTYPES) <= set(info.dtypes())
    assert info.capabilities()["boolean indexing"] and info.devices()
