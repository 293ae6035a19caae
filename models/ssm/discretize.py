"""Discretisation of a linear system ẋ = Ax + Bu, sampled at intervals Δ: ZOH, bilinear, Euler, Mamba's rule.

    xₖ = Ā xₖ₋₁ + B̄ uₖ                                             each method has its own Ā and B̄
    zoh         Ā = exp(ΔA), B̄ = (ΔA)⁻¹(exp(ΔA) − I) ΔB            Gu and Dao 2023 (Mamba), eq. 4
    bilinear    Ā = (I − ΔA/2)⁻¹(I + ΔA/2), B̄ = (I − ΔA/2)⁻¹ ΔB    Gu et al. 2022 (S4), eq. 3
    euler       Ā = I + ΔA, B̄ = ΔB                                 Gu et al. 2020 (HiPPO), appendix B.3
    generalized_bilinear    (I − αΔA)⁻¹(I + (1 − α)ΔA), (I − αΔA)⁻¹ ΔB    Gu et al. 2021 (LSSL), section 2
                            α = 0 is Euler, ½ bilinear, 1 backward Euler
    mamba       Ā = exp(ΔA), B̄ = ΔB                                Mamba's code, which its eq. 4 does not say

    A        the system, a matrix (N, N), or its diagonal (*channels, N). Its eigenvalues have real parts ≤ 0.
    B        how the input enters, (N,) or, for M inputs, (N, M); beside a diagonal, what broadcasts against it.
    delta    Δ > 0, the step: a number for a matrix; beside a diagonal also what broadcasts, such as (*channels, 1). The
             bilinear methods take several steps of one matrix too, (channels, 1, 1), and return as many systems.
             An A of two axes is a matrix where delta has none, and the diagonals of channels where it has some.

Zero-order hold divides by A nowhere. With φ(x) = (eˣ − 1)/x = Σ xᵏ/(k + 1)!, an entire function with φ(0) = 1,

    Ā = I + ΔA φ(ΔA),   B̄ = φ(ΔA) ΔB        φ(2x) = φ(x)(eˣ + 1)/2,   e²ˣ = (eˣ)²

so a singular A is no exception, and derivatives near 0 are those of the series. For real and complex numbers; the
bilinear methods and Euler's also for exact ones. What does not fit raises ValueError in one line.
"""

import math
from collections.abc import Callable
from typing import Any

from minigrad import namespace
from minigrad.engine import unwrap
from minigrad.values import holds
from models.forms import Array

# φ's series, as far as |x| < 1 needs: what is left out is far below 2⁻⁵³, in two derivatives too
SERIES = [1 / math.factorial(k + 1) for k in range(21)]


def zoh(A: Array, B: Array, delta: Array) -> tuple[Array, Array]:
    """Return Ā, B̄ by zero-order hold: exact where u is constant between samples. A matrix costs O(N³ log ‖ΔA‖).

    The number of squarings is read off ΔA, so a matrix cannot be traced by a compiler.
    """
    if _is_matrix("zoh", A, B, delta):
        power, phi = _phi_of_matrix(delta * A)
        return power, phi @ (delta * B)
    return namespace(A, _array(delta)).exp(delta * A), _phi(delta * A) * (delta * B)


def mamba(A: Array, B: Array, delta: Array) -> tuple[Array, Array]:
    """Return zero-order hold's Ā and Euler's B̄, as Mamba's code has them: B̄ is off by O(Δ²)."""
    if _is_matrix("mamba", A, B, delta):
        return _phi_of_matrix(delta * A)[0], delta * B
    return namespace(A, _array(delta)).exp(delta * A), delta * B


def bilinear(A: Array, B: Array, delta: Array) -> tuple[Array, Array]:
    """Return Ā, B̄ by the trapezoidal rule (Tustin's method): |Ā| ≤ 1 for every stable A and every Δ."""
    return _implicit("bilinear", A, B, delta, 1, 1, scale=2)


def euler(A: Array, B: Array, delta: Array) -> tuple[Array, Array]:
    """Return Ā, B̄ by Euler's method. Large steps of a stable system may be unstable: |1 + Δλ| can exceed 1."""
    if _is_matrix("euler", A, B, delta):
        return _identity(A) + delta * A, delta * B
    return 1 + delta * A, delta * B


def generalized_bilinear(A: Array, B: Array, delta: Array, *, alpha: Any) -> tuple[Array, Array]:
    """Return Ā, B̄ with the share α of the step taken implicitly. Raises ValueError outside 0 ≤ α ≤ 1."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"discretize.generalized_bilinear: alpha is {alpha}, expected a number from 0 to 1")
    return _implicit("generalized_bilinear", A, B, delta, alpha, 1 - alpha, scale=1)


METHODS: dict[str, Callable[[Array, Array, Array], tuple[Array, Array]]] = {
    "zoh": zoh,
    "bilinear": bilinear,
    "euler": euler,
    "mamba": mamba,
}


def _implicit(label: str, A: Array, B: Array, delta: Array, end: Any, start: Any, *, scale: int) -> tuple[Array, Array]:
    """Solve (whole·I − end·ΔA)(Ā, B̄) = (whole·I + start·ΔA, whole·ΔB): whole numbers keep halves out of exact ones."""
    if not _is_matrix(label, A, B, delta, batched=True):
        solved = scale - end * (delta * A)
        return (scale + start * (delta * A)) / solved, scale * (delta * B) / solved
    scaled_identity, columns = scale * _identity(A), B if B.ndim == 2 else B[:, None]
    xp = namespace(A, B, _array(delta))
    right_sides = xp.concat([scaled_identity + start * (delta * A), scale * (delta * columns)], axis=-1)
    solution = xp.linalg.solve(scaled_identity - end * (delta * A), right_sides)
    return solution[..., : scaled_identity.shape[0]], solution[
        ..., scaled_identity.shape[0] :
    ] if B.ndim == 2 else solution[..., -1]


# φ


def _phi(x: Array) -> Array:
    """Return (eˣ − 1)/x elementwise, by its series where the difference would cancel."""
    xp = namespace(x)
    small = xp.abs(x) < 1
    near = xp.where(small, x, 0)
    far = xp.where(small, near + 1, x)  # nonzero, so that the gradient of the branch not taken is finite
    series = xp.ones_like(x) * SERIES[-1]
    for coefficient in SERIES[-2::-1]:
        series = near * series + coefficient
    return xp.where(small, series, (xp.exp(far) - 1) / far)


def _phi_of_matrix(X: Array) -> tuple[Array, Array]:
    """Return exp(X) and φ(X), by the series at X/2ˢ of norm below 1 and s doublings."""
    norm = _number(abs(unwrap(X)).sum(0).max())
    doublings = max(0, math.frexp(norm)[1])
    identity, near = _identity(X), X / 2.0**doublings
    phi = identity * SERIES[-1]
    for coefficient in SERIES[-2::-1]:
        phi = near @ phi + identity * coefficient
    power = identity + near @ phi
    for _ in range(doublings):
        power, phi = power @ power, phi @ (power + identity) / 2
    return power, phi


def _identity(A: Array) -> Array:
    return namespace(A).eye(A.shape[0], dtype=A.dtype)


# Checks of arguments


def _is_matrix(label: str, A: Array, B: Array, delta: Array, *, batched: bool = False) -> bool:
    """Return whether A is a matrix, not a diagonal: A has two axes and Δ none, or (channels, 1, 1) if `batched`.

    Raises ValueError for what does not fit.
    """
    label, steps = f"discretize.{label}", unwrap(delta)
    if not holds((label, "delta"), lambda steps: (steps > 0) & (steps < math.inf), steps):
        raise ValueError(f"{label}: delta holds {_worst(steps)}, expected finite steps above 0")

    shapes = (tuple(A.shape), tuple(B.shape), tuple(getattr(delta, "shape", ())))
    if len(shapes[0]) == 2 and (not shapes[2] or batched and len(shapes[2]) == 3 and shapes[2][1:] == (1, 1)):
        _check_matrix(label, *shapes[:2])
        _check_eigenvalues(label, unwrap(A))
        return True
    if not (_broadcast(*shapes) and all(shapes[:2]) and shapes[0][-1] == shapes[1][-1]):
        raise ValueError(
            f"{label}: A, B and delta have shapes {shapes[0]}, {shapes[1]} and {shapes[2]}, "
            "expected (*channels, N) twice, and (*channels, 1) or no axis"
        )
    real_parts = namespace(A).real(unwrap(A))
    if not holds((label, "diagonal A"), lambda real_parts: real_parts <= 0, real_parts):
        raise ValueError(f"{label}: A holds real part {_number(real_parts.max())}, expected real parts of at most 0")
    return False


def _check_matrix(label: str, A: tuple[int, ...], B: tuple[int, ...]) -> None:
    if A[0] != A[1]:
        raise ValueError(f"{label}: A has shape {A}, expected (N, N) where delta is a number")
    if len(B) not in (1, 2) or B[0] != A[0]:
        raise ValueError(f"{label}: B has shape {B}, expected ({A[0]},) or ({A[0]}, M) as A is {A}")


def _check_eigenvalues(label: str, A: Array) -> None:
    """Raise ValueError where one grows. Rounding may move them by about √eps of A's norm; exact ones are not known."""
    xp = namespace(A)
    if not hasattr(xp.linalg, "eigvals") or holds((label, "matrix A"), _stable, A):
        return
    if not xp.all(xp.isfinite(A)):
        raise ValueError(f"{label}: A holds NaN or infinity, expected finite numbers")
    largest = f"{_number(_greatest_real_part(A)):.6g}"
    raise ValueError(f"{label}: A has an eigenvalue of real part {largest}, expected real parts of at most 0")


def _stable(A: Array) -> bool:
    xp = namespace(A)
    if not xp.all(xp.isfinite(A)):  # JAX raises here where it traces, before any eigenvalue is computed
        return False
    return bool(_greatest_real_part(A) <= xp.finfo(A.dtype).eps ** 0.5 * abs(A).sum(0).max())


def _greatest_real_part(A: Array) -> Array:
    return namespace(A).real(namespace(A).linalg.eigvals(A)).max()


def _array(x: Any) -> Any:
    """Return an array as it is, and None for a number, which belongs to no array library."""
    return x if hasattr(x, "shape") else None


def _number(x: Any) -> float:
    """Convert a scalar of any library, also a differentiable one, to a float."""
    return x.item() if hasattr(x, "item") else float(x)


def _worst(steps: Any) -> Any:
    if not hasattr(steps, "shape"):
        return steps
    least, greatest = _number(steps.min()), _number(steps.max())
    return greatest if least > 0 else least


def _broadcast(*shapes: tuple[int, ...]) -> bool:
    """Return whether arrays of these shapes broadcast together."""
    for axis in range(1, 1 + max(map(len, shapes))):
        if len({shape[-axis] for shape in shapes if len(shape) >= axis} - {1}) > 1:
            return False
    return True
