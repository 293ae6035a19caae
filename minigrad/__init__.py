# ruff: noqa: F401 - this file is the list of what the namespace offers
"""minigrad: a small engine for gradients of any order, and itself an array namespace.

    loss, slope = mg.value_and_grad(f)(x)      x: an array, or containers of arrays such as a `minigrad.nn.Module`

Functions carry the names of the Python array API standard. They take arrays of NumPy, CuPy, PyTorch and JAX, NumPy
arrays of exact numbers (`minigrad.exact`), and Tensors; only Tensors in make Tensors out. `minigrad.engine` is the
engine, `minigrad.primitives` the calculus, `minigrad.transforms` what is made of both.
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
    int32,
    int64,
    nan,
    newaxis,
    pi,
    uint8,
)

from minigrad import exact, operators
from minigrad.checks import check_grads
from minigrad.convolution import causal_conv1d
from minigrad.engine import Tensor, primitive
from minigrad.fused import checkpoint, fused
from minigrad.lists import accept_lists as _accept_lists
from minigrad.memory import keep_freed_memory
from minigrad.namespace import namespace
from minigrad.primitives import fft, linalg
from minigrad.primitives.constants import (
    all,
    any,
    arange,
    argmax,
    argmin,
    asarray,
    ceil,
    count_nonzero,
    equal,
    eye,
    floor,
    floor_divide,
    full,
    greater,
    greater_equal,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    linspace,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    nonzero,
    not_equal,
    ones,
    ones_like,
    remainder,
    round,
    searchsorted,
    sign,
    signbit,
    trunc,
    unique_values,
    zeros,
    zeros_like,
)
from minigrad.primitives.elementwise import (
    abs,
    acos,
    add,
    asin,
    astype,
    atan,
    atan2,
    clip,
    conj,
    cos,
    cosh,
    divide,
    erf,
    exp,
    expm1,
    gelu,
    imag,
    log,
    log1p,
    log_sigmoid,
    logaddexp,
    maximum,
    minimum,
    multiply,
    negative,
    pow,
    real,
    reciprocal,
    relu,
    sigmoid,
    silu,
    sin,
    sinh,
    softplus,
    sqrt,
    square,
    stop_gradient,
    subtract,
    tan,
    tanh,
    where,
)
from minigrad.primitives.halves import swiglu, turn
from minigrad.primitives.indexing import (
    argsort,
    assemble,
    scatter_add,
    sort,
    take,
    take_along_axis,
)
from minigrad.primitives.linalg import (
    diagonal,
    diagonal_matrix,
    einsum,
    matmul,
    outer,
    solve,
    solve_triangular,
    tensordot,
    trace,
    vecdot,
)
from minigrad.primitives.normalisers import cross_entropy, log_softmax, logsumexp, rms_norm, softmax
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
    broadcast_to,
    concat,
    expand_dims,
    flip,
    matrix_transpose,
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
from minigrad.threads import get_num_threads, set_num_threads
from minigrad.transforms import grad, gradients, hvp, jvp, value_and_grad, vjp

_accept_lists()
