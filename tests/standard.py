"""array-api-strict as an oracle: it implements the array API standard and nothing else, on NumPy's arrays."""

import inspect
import math
import warnings

import array_api_strict as strict
import numpy as np

import minigrad as mg

VERSION = "2024.12"
strict.set_array_api_strict_flags(api_version="2025.12")  # a superset
NAMES = {name: strict for name in sorted(strict.__all__) if name not in ("Device", "__version__", "fft", "linalg")}
NAMES = {name: home for name, home in NAMES.items() if "strict" not in name.lower()}  # those that configure the oracle
NAMES |= {f"linalg.{name}": strict.linalg for name in strict.linalg.__all__}
NAMES |= {f"fft.{name}": strict.fft for name in strict.fft.__all__}
FUNCTIONS = [name for name, home in NAMES.items() if inspect.isfunction(getattr(home, name.split(".")[-1]))]


def find(library, name):
    """Return a library's member with a dotted name."""
    for part in name.split("."):
        library = getattr(library, part)
    return library


DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float32", "float64", "complex64", "complex128"]
REALS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, math.inf, -math.inf, math.nan, 1e-40, 3e38, 1.5e-45]


def edges(dtype):
    """Return edge cases of a dtype."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return np.array([0, 1, 2, 3, 7, limits.max, limits.max - 1, limits.min, limits.min + 1], dtype)
    with np.errstate(all="ignore"):
        if dtype.kind == "f":
            return np.array(REALS, dtype)
        return np.array([complex(a, b) for a in (0.0, -0.0, 1.5, -2.0, math.inf) for b in (0.0, -1.0, 0.5)], dtype)


def boxed(x):
    return mg.Tensor(x) if isinstance(x, np.ndarray) else mg.Tensor(np.asarray(x))


def plain(outputs):
    """Return results as NumPy arrays, tuples of them as lists."""
    if isinstance(outputs, (tuple, list)):
        return [plain(part) for part in outputs]
    return np.asarray(getattr(outputs, "_array", getattr(outputs, "value", outputs)))


def compare(name, call, exact=True):
    """Compare call(namespace, asarray) with the standard's, of raw arrays and of Tensors."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing
        try:
            expected = plain(call(strict, strict.asarray))
        except (TypeError, ValueError) as error:
            return error
        for asarray in (np.asarray, boxed):
            actual = plain(call(mg, asarray))
            pairs = zip(actual, expected, strict=True) if isinstance(expected, list) else [(actual, expected)]
            for f, e in pairs:
                assert f.dtype == e.dtype and f.shape == e.shape, f"{name}: {f.dtype}{f.shape}, not {e.dtype}{e.shape}"
                rtol = 0 if e.dtype.kind not in "fc" else 8 * np.finfo(e.dtype).eps
                np.testing.assert_allclose(f, e, rtol=rtol, atol=0 if exact else 1e-5, err_msg=name)
                if exact and e.dtype.kind == "f":
                    np.testing.assert_array_equal(np.signbit(f[e == 0]), np.signbit(e[e == 0]), err_msg=name)
    return None


UNARY = """
abs acos acosh asin asinh atan atanh bitwise_invert ceil conj cos cosh exp expm1 floor imag isfinite isinf isnan log
log10 log1p log2 logical_not negative positive real reciprocal round sign signbit sin sinh sqrt square tan tanh trunc
""".split()
BINARY = """
add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide equal floor_divide
greater greater_equal hypot less less_equal logaddexp logical_and logical_or logical_xor maximum minimum multiply
nextafter not_equal pow remainder subtract
""".split()
