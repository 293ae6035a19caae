"""A vector of floats for Numba, as wide as the processor's registers: 256 bits, or 512 where it has AVX-512.

    @kernel
    def axpy(a, x, y):                                    # y ← y + a x
        for i in range(0, x.size, lanes(x)):
            store(y, i, fma(splat(x, a), load(x, i), load(y, i)))

LLVM, which Numba compiles with, has vectors as a type of its own; here they get a name in Numba and a few functions.
Where registers are narrower LLVM splits vectors, and where a processor has no fused multiply-add it calls one: each
lane's numbers are the same everywhere, and only sums across lanes depend on how many there are. Loads and stores take
a flat index into a C-contiguous array and are not checked.

Nothing here may be compiled with fastmath: `exp2` rounds by adding a large number, which fastmath simplifies away.
"""

import hashlib
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic, models, overload, register_model

from minigrad.compiled.compilation import announce, keep_on_disk

BITS = 512 if llvm.get_host_cpu_features().get("avx512f") else 256
SOURCE = hashlib.sha256(Path(__file__).read_bytes()).digest()


def kernel(function: Callable) -> Any:
    """Compile a function with Numba, without Python's lock, and keep it on disk until it, or this module, changes.

    What is here, the width of a vector too, becomes part of its code.
    """
    compiled = njit(nogil=True, no_cfunc_wrapper=True)(function)  # C calls none of them, and wrappers compile slowly
    keep_on_disk(compiled, SOURCE, BITS)
    announce(compiled)
    return compiled


class Vector(types.Type):
    """The Numba type of a vector: `lanes` floats of the type `element`."""

    def __init__(self, element: types.Float) -> None:
        self.element, self.lanes = element, BITS // element.bitwidth
        super().__init__(name=f"{element}x{self.lanes}")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """In LLVM: <8 x float> or <4 x double> where there are 256 bits."""

    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.element).get_value_type(), vector.lanes))


# Memory


@intrinsic
def load(typing, x, i):
    """Return x[i : i + lanes], of an array read as one row."""

    def generate(context, builder, signature, args):
        pointer, bits = _pointer(context, builder, signature, args)
        return builder.load(pointer, align=bits // 8)

    return Vector(x.dtype)(x, i), generate


@intrinsic
def store(typing, x, i, vector):
    """Store a vector in x[i : i + lanes]."""

    def generate(context, builder, signature, args):
        pointer, bits = _pointer(context, builder, signature, args)
        builder.store(args[2], pointer, align=bits // 8)
        return context.get_dummy_value()

    return types.none(x, i, vector), generate


@njit(no_cfunc_wrapper=True)
def fetch(x, first, count):
    """Prefetch x[first : first + count] of a flattened array; indices outside x are ignored.

    Processors do this by themselves where memory is read upwards.
    """
    for i in range(first, first + count, lanes(x)):
        _fetch_line(x, i)


@intrinsic
def _fetch_line(typing, x, i):
    def generate(context, builder, signature, args):
        pointer, _ = _pointer(context, builder, signature, args)
        number, kind = ir.IntType(32), ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [kind, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [kind], function)
        read, soon, data = number(0), number(3), number(1)
        builder.call(prefetch, (builder.bitcast(pointer, kind), read, soon, data))
        return context.get_dummy_value()

    return types.none(x, i), generate


def _pointer(context, builder, signature, args):
    """Return where the vector lies, and the width of an element: all the alignment there is."""
    array, index = signature.args[:2]
    vector = Vector(array.dtype)
    data = cgutils.create_struct_proxy(array)(context, builder, args[0]).data
    address = builder.gep(data, [context.cast(builder, args[1], index, types.intp)])
    return builder.bitcast(address, context.get_value_type(vector).as_pointer()), array.dtype.bitwidth


@intrinsic
def splat(typing, x, scalar):
    """Return a vector for the array x with this number in every lane."""
    vector = Vector(x.dtype)

    def generate(context, builder, signature, args):
        value = context.cast(builder, args[1], signature.args[1], vector.element)
        return _everywhere(builder, context.get_value_type(vector), value)

    return vector(x, scalar), generate


def _everywhere(builder, kind, value):
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


def lanes(x):
    """Return how many elements of the array x make a vector; inside compiled code a constant."""
    return BITS // (8 * x.itemsize)


@overload(lanes)
def _lanes(x):
    count = Vector(x.dtype).lanes
    return lambda x: count


@njit(no_cfunc_wrapper=True)
def room(x, *shape):
    """Return an uninitialised array of x's type, aligned to the width of a vector.

    Two loads are needed where a vector crosses from one line of the cache to the next.
    """
    size = 1
    for axis in shape:
        size *= axis
    numbers = np.empty(size + lanes(x), x.dtype)
    first = -(numbers.ctypes.data // x.itemsize) % lanes(x)
    return numbers[first : first + size].reshape(shape)


@njit(no_cfunc_wrapper=True)
def assign(into, x):
    """Assign x to an array of the same two axes.

    `into[:] = x` does so too, but compiles for seconds: Numba adds the message of an error to each kernel that has it.
    """
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            into[i, j] = x[i, j]


# Arithmetic


def _lane_by_lane(python: Callable, llvm: str) -> None:
    """Define a Python operator on two vectors, lane by lane."""

    @intrinsic
    def compute(typing, a, b):
        return a(a, b), lambda context, builder, signature, args: getattr(builder, llvm)(*args)

    @overload(python)
    def operate(a, b):
        if isinstance(a, Vector) and a == b:
            return lambda a, b: compute(a, b)
        return None


_lane_by_lane(operator.add, "fadd")
_lane_by_lane(operator.sub, "fsub")
_lane_by_lane(operator.mul, "fmul")
_lane_by_lane(operator.truediv, "fdiv")


@intrinsic
def fma(typing, a, b, c):
    """Return a b + c, rounded once."""
    return a(a, b, c), lambda context, builder, signature, args: _fma(builder, *args)


def _fma(builder, a, b, c):
    kind = a.type
    name = f"llvm.fma.v{kind.count}f{32 if isinstance(kind.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(function, (a, b, c))


@intrinsic
def total(typing, a):
    """Return the sum of the lanes, by adding halves repeatedly."""

    def generate(context, builder, signature, args):
        (vector,) = args
        count = a.lanes
        while count > 1:
            count //= 2
            low, high = (
                builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(ir.IntType(32), count), list(indices)))
                for indices in (range(count), range(count, 2 * count))
            )
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, ir.IntType(32)(0))

    return a.element(a), generate


@intrinsic
def largest(typing, a, b):
    """Return the larger of two vectors, lane by lane; b where either is NaN."""

    def generate(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, b), generate


@intrinsic
def where_negative(typing, x, a, b):
    """Return a in the lanes where x < 0, b in the others, which are those of NaN too."""

    def generate(context, builder, signature, args):
        vector, *choices = args
        zero = ir.Constant(vector.type, [0.0] * vector.type.count)
        return builder.select(builder.fcmp_ordered("<", vector, zero), *choices)

    return a(x, a, b), generate


def polynomial(coefficients: dict[int, tuple[float, ...]]) -> Any:
    """Return a function of a vector x: Σ cᵢ xⁱ by Horner's rule, with the coefficients for floats of its width."""

    @intrinsic
    def compute(typing, x):
        bits = x.element.bitwidth

        def generate(context, builder, signature, args):
            constants = [ir.Constant(args[0].type, [_nearest(c, bits)] * x.lanes) for c in coefficients[bits]]
            value = constants.pop()
            while constants:
                value = _fma(builder, value, *args, constants.pop())
            return value

        return x(x), generate

    return compute


# 2ˣ and eˣ

# 2ᶠ ≈ Σ cᵢ fⁱ on [−½, ½] with the least relative error (Remez): 1.9e-9 and 3.1e-18 before the coefficients are rounded.
# c₀ rounds to 1, so 2⁰ is 1: what decays at rate 0 stays.
_POLYNOMIAL = {
    32: (
        1.0,
        0.69314720573725267536,
        0.24022646890639572134,
        0.055503287769976637639,
        0.0096184889565227915705,
        0.0013399931209474140493,
        0.00015345812158740182477,
    ),
    64: (
        1.0,
        0.69314718055994533046,
        0.24022650695910156205,
        0.055504108664819921483,
        0.0096181291075883350833,
        0.0013333558146789950323,
        0.00015403530462514613026,
        0.0000152527334899608046,
        1.3215433089594629037e-6,
        1.0178198033328527662e-7,
        7.0741056262456593708e-9,
        4.4352809446103361611e-10,
    ),
}
_MANTISSA, _BIAS = {32: 23, 64: 52}, {32: 127, 64: 1023}


@njit(inline="always")
def exp2(x):
    """Return 2ˣ to about an ulp; NaN for NaN, 0 below 2⁻¹²⁶·⁵ (2⁻¹⁰²²·⁵) and ∞ from 2¹²⁷·⁵ (2¹⁰²³·⁵) on."""
    return exp2_of_product(x, one(x))


@intrinsic
def one(typing, a):
    """Return a vector of ones, as wide as a."""

    def generate(context, builder, signature, args):
        kind = context.get_value_type(a)
        return ir.Constant(kind, [1.0] * a.lanes)

    return a(a), generate


@intrinsic
def exp2_of_product(typing, x, y):
    """Return 2ˣʸ, accurate as `exp2`: of the product x y only the fractional part is rounded."""
    return x(x, y), lambda context, builder, signature, args: _exp2(builder, x.element.bitwidth, *args)


@intrinsic
def exp2_of_long_product(typing, x, y, low):
    """Return 2^(x (y + low)), where low ≪ y is the rounding error of y."""
    return x(x, y, low), lambda context, builder, signature, args: _exp2(builder, x.element.bitwidth, *args)


_LOG2E, _LOG2E_LOW = 1.4426950408889634, {32: 1.925962991126e-8, 64: 2.035527374093103e-17}  # log₂ e in two parts


@intrinsic
def exp(typing, x):
    """Return eˣ, accurate as `exp2`: log₂ e is held in two parts, since the error of one would grow as |x|."""
    bits = x.element.bitwidth

    def generate(context, builder, signature, args):
        kind = context.get_value_type(x)
        parts = (ir.Constant(kind, [_nearest(part, bits)] * x.lanes) for part in (_LOG2E, _LOG2E_LOW[bits]))
        return _exp2(builder, bits, *args, *parts)

    return x(x), generate


def _exp2(builder, bits, x, y, low=None):
    """Generate 2^(x (y + low)).

    n = round(x y), f = x y − n + x low, and the result is 2ⁿ 2ᶠ. Adding 1.5 · 2²³ (float64: 2⁵²) leaves no bits for a
    fraction, so the sum is rounded and n stands in its lowest bits; with the exponent's bias added too, shifting them
    left makes 2ⁿ. Its exponent has no more bits than make ∞, which n = 128 (1024) does: a larger n becomes that.
    """
    mantissa, bias, kind = _MANTISSA[bits], _BIAS[bits], x.type
    integers = ir.VectorType(ir.IntType(bits), kind.count)

    def constant(value, kind=kind):
        return ir.Constant(kind, [value] * kind.count)

    zero = 1.5 * 2.0**mantissa  # what rounded is where 2ⁿ would be 0
    rounded = _fma(builder, x, y, constant(zero + bias))
    infinite = constant(zero + 2 * bias + 1)
    rounded = builder.select(builder.fcmp_ordered("<", rounded, infinite), rounded, infinite)
    n = builder.fsub(rounded, constant(zero + bias))
    f = _fma(builder, x, y, builder.fneg(n))
    if low is not None:
        f = _fma(builder, x, low, f)
    *lower, power = _POLYNOMIAL[bits]
    fraction = constant(_nearest(power, bits))
    for coefficient in reversed(lower):
        fraction = _fma(builder, fraction, f, constant(_nearest(coefficient, bits)))
    shifted = builder.shl(builder.bitcast(rounded, integers), constant(mantissa, integers))
    power = builder.fmul(fraction, builder.bitcast(shifted, kind))
    return builder.select(builder.fcmp_ordered("<=", rounded, constant(zero)), constant(0.0), power)


def _nearest(value: float, bits: int) -> float:
    """Return the constant rounded to this width, as LLVM requires."""
    return float(np.float32(value)) if bits == 32 else value
