"""The tail of the normal distribution on vectors, Φ(−u) for u ≥ 0, of which GELU and its adjoint are made.

    Φ(−u) = tail(u) h²,    tail(u) = Φ(−u) e^(u²/2),    h = e^(−u²/4)

tail(u) (1 + u) is bounded and smooth, so that one polynomial serves all u; e^(−u²/2) underflows and is left in two
equal factors.
"""

import math

import numpy as np
from numba import njit

from minigrad.compiled.simd import exp2_of_long_product, fma, largest, one, polynomial, splat

# Φ(−u) e^(u²/2) (1 + u), u ≥ 0, as a polynomial in (u − 4)/(u + 4), the variable of Shepherd and Laframboise 1981, from
# interpolation at Chebyshev's nodes: coefficients of rising powers, to 1e-9 (32 bits) and 5e-17 (64 bits).
_tail = polynomial(
    {
        32: (
            0.4720532063565995,
            -0.09670347042745923,
            0.013999649972160097,
            0.028600168143397546,
            -0.032198086440637604,
            0.017937695942263972,
            -0.0050008404391387725,
            -0.00029126749523318687,
            0.0006903034856566645,
            -8.455401787143764e-05,
            -8.059327401204448e-05,
            1.256854669748779e-05,
            7.500679584443513e-06,
        ),
        64: (
            0.47205320650984467,
            -0.09670347732652607,
            0.013999634724424333,
            0.02860036405357749,
            -0.03219783742802203,
            0.01793609747886859,
            -0.005002378592511494,
            -0.00028562308680939413,
            0.0006948971219073166,
            -9.443033944152223e-05,
            -8.785330394797745e-05,
            2.1250446856208376e-05,
            1.3627395285352675e-05,
            -3.433372216853275e-06,
            -2.6144101706596152e-06,
            4.0671730125154447e-07,
            5.548340462207789e-07,
            -1.237153366992197e-09,
            -1.1446850712758079e-07,
            -1.7932121916642413e-08,
            2.0257667136861587e-08,
            5.474708632048689e-09,
            -2.6180348731255444e-09,
            -6.763267210562454e-10,
            1.7873545221852657e-10,
        ),
    }
)
_QUARTER, _QUARTER_LOW = 0.36067376022224085, 5.088818435232758e-18  # log₂ e / 4 in two parts
DENSITY = 1 / math.sqrt(2 * math.pi)


@njit(inline="always")
def normal_tail(like, x):
    """Return u = min(|x|, 80), Φ(−u) e^(u²/2) and h = e^(−u²/4).

    h² may be subnormal, with few digits: callers multiply by h twice, last.
    """
    zero = one(x) - one(x)
    size = largest(zero - x, x)
    u = zero - largest(splat(like, -80), zero - size)
    tail = _tail((u - splat(like, 4)) / (u + splat(like, 4))) / (u + one(u))
    low = splat(like, _QUARTER - np.float64(np.float32(_QUARTER))) if like.itemsize == 4 else splat(like, _QUARTER_LOW)
    rate = u * splat(like, _QUARTER)
    rounding = fma(u, splat(like, _QUARTER), zero - rate)
    return u, tail, exp2_of_long_product(zero - u, rate, fma(u, low, rounding))
