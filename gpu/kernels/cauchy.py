"""S4's kernel Kₗ = Σₙ wₙ / (zₗ − λₙ) and its adjoint, by the kernels of `cauchy.cu`."""

from typing import Any

from gpu.launch import check, check_same_shape, empty, launch

THREADS = 256


def forward(w: Any, z: Any, poles: Any) -> Any:
    """Return K (D, L) of complex w, poles (D, N) and z (D, L). Raises TypeError and ValueError, as `check` does."""
    check("cauchy", dtypes="FD", w=w, z=z, poles=poles)
    check_same_shape("cauchy", w=w, poles=poles)
    K = empty(w, z.shape)
    _launch_by_node("cauchy_forward", w, z, poles, K)
    return K


def backward(w: Any, z: Any, poles: Any, dK: Any) -> tuple[Any, Any, Any]:
    """Return the cotangents of w, z and the poles from that of K: Jᴴ dK."""
    check("cauchy", dtypes="FD", w=w, dK=dK)
    check_same_shape("cauchy", z=z, dK=dK)
    dw, dz, dpoles = empty(w, w.shape), empty(w, z.shape), empty(w, w.shape)
    _launch_by_node("cauchy_backward_nodes", w, z, poles, dK, dz)
    launch(
        "cauchy", "cauchy_backward_poles", w, (w.size,), THREADS, w, z, poles, dK, dw, dpoles, w.shape[1], z.shape[1]
    )
    return dw, dz, dpoles


def _launch_by_node(kernel: str, w: Any, z: Any, *others: Any) -> None:
    """Launch a kernel with a thread for every node."""
    states, (channels, length) = w.shape[1], z.shape
    launch(
        "cauchy",
        kernel,
        w,
        (channels * -(-length // THREADS),),
        THREADS,
        w,
        z,
        *others,
        states,
        length,
        shared=2 * states * w.dtype.itemsize,
        of=f"N = {states}",
    )
