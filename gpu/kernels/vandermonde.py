"""S4D's kernel Kₗ = 2 Re Σₙ wₙ Aₙˡ and its adjoint, by the kernels of `vandermonde.cu`."""

from typing import Any

from gpu.launch import check, check_same_shape, empty, launch

THREADS, STRIP = 256, 4096  # of a block; elements of K that it computes


def forward(w: Any, A: Any, *, length: int) -> tuple[Any, tuple[Any, Any]]:
    """Return (K, saved), K (D, L) real, of complex w, A (D, N).

    Raises TypeError and ValueError, as `gpu.launch.check` does.
    """
    check("vandermonde", dtypes="FD", w=w, A=A)
    check_same_shape("vandermonde", w=w, A=A)
    channels, states = w.shape
    K = empty(w, (channels, length), w.real.dtype)
    launch(
        "vandermonde",
        "vandermonde_forward",
        w,
        (channels * -(-length // STRIP),),
        THREADS,
        w,
        A,
        K,
        states,
        length,
        shared=states * w.dtype.itemsize,
        of=f"N = {states}",
    )
    return K, (w, A)


def backward(saved: tuple[Any, Any], dK: Any) -> tuple[Any, Any]:
    """Return the cotangents of w and A from that of K: Jᴴ dK."""
    w, A = saved
    check("vandermonde", dtypes="fd", dK=dK)
    dw, dA = empty(w, w.shape), empty(w, w.shape)
    launch("vandermonde", "vandermonde_backward", w, (w.size,), THREADS, w, A, dK, dw, dA, w.shape[1], dK.shape[1])
    return dw, dA
