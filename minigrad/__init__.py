# ruff: noqa: F401 - this file lists the public names
"""minigrad: reverse-mode automatic differentiation of any order, and an array namespace.

    loss, gradient = mg.value_and_grad(f)(x)      x: an array, or containers of arrays such as a `minigrad.nn.Module`

Functions have the names of the Python array API standard. They accept arrays of NumPy, CuPy, PyTorch and JAX, NumPy
arrays of exact numbers (`minigrad.exact`), and Tensors, and return Tensors only where an argument is one.
`minigrad.engine` defines Tensors and the graph, `minigrad.backward` the backward pass, `minigrad.primitives` the
operations with their rules, and `minigrad.transforms` grad, vjp and jvp.
"""

from numpy import (
    bool_ as bool,
)
from numpy import (
    complex64,
    complex128,
    e,
    float32,
    float64,
    inf,
    int8,
    int16,
    int32,
    int64,
    nan,
    newaxis,
    pi,
    uint8,
    uint16,
    uint32,
    uint64,
)

from minigrad import exact, operators
from minigrad.checks import check_grads
from minigrad.compiled.threads import get_num_threads, set_num_threads
from minigrad.convolution import causal_conv1d
from minigrad.engine import Tensor, primitive
from minigrad.fused import checkpoint, fused
from minigrad.memory import keep_freed_memory
from minigrad.namespace import namespace
from minigrad.primitives import fft, linalg
from minigrad.primitives.activations import erf, gelu, log_sigmoid, logaddexp, relu, sigmoid, silu, softplus
from minigrad.primitives.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from minigrad.primitives.dtypes import (
    __array_namespace_info__,
    can_cast,
    finfo,
    iinfo,
    isdtype,
    result_type,
)
from minigrad.primitives.einsum import einsum
from minigrad.primitives.elementwise import (
    abs,
    add,
    astype,
    clip,
    conj,
    copysign,
    divide,
    exp,
    expm1,
    hypot,
    imag,
    log,
    log1p,
    log2,
    log10,
    maximum,
    minimum,
    multiply,
    negative,
    positive,
    pow,
    real,
    reciprocal,
    remainder,
    sign,
    sqrt,
    square,
    stop_gradient,
    subtract,
    where,
)
from minigrad.primitives.gated import rotary, swiglu
from minigrad.primitives.indexing import (
    argsort,
    scatter_add,
    sort,
    take,
    take_along_axis,
    to_dense,
)
from minigrad.primitives.nondifferentiable import (
    all,
    any,
    argmax,
    argmin,
    bitwise_and,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    ceil,
    count_nonzero,
    equal,
    floor,
    floor_divide,
    greater,
    greater_equal,
    isfinite,
    isin,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    nextafter,
    nonzero,
    not_equal,
    round,
    searchsorted,
    signbit,
    trunc,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from minigrad.primitives.normalisers import cross_entropy, log_softmax, logsumexp, rms_norm, softmax
from minigrad.primitives.products import diagonal, diagonal_matrix, matmul, outer, tensordot, trace, vecdot
from minigrad.primitives.reductions import (
    cumulative_max,
    cumulative_prod,
    cumulative_sum,
    max,
    mean,
    min,
    prod,
    scan,
    std,
    sum,
    var,
)
from minigrad.primitives.shapes import (
    broadcast_arrays,
    broadcast_shapes,
    broadcast_to,
    concat,
    diff,
    expand_dims,
    flip,
    matrix_transpose,
    meshgrid,
    moveaxis,
    pad,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    swapaxes,
    tile,
    tril,
    triu,
    unstack,
)
from minigrad.primitives.solves import solve, solve_triangular
from minigrad.primitives.trigonometry import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    cos,
    cosh,
    sin,
    sinh,
    tan,
    tanh,
)
from minigrad.transforms import grad, gradients, hvp, jvp, value_and_grad, vjp

__array_api_version__ = "2024.12"
