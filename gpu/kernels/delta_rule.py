"""The delta rule and its adjoint, by the kernels of `gated_delta_rule.cu` with decays of 1.

The decays cost 4 exponentials and about 60 additions per thread and chunk, beside 2,000 multiply-adds: a version
without them would gain little.
"""

from typing import Any

from gpu.kernels import gated_delta_rule
from gpu.kernels.gated_delta_rule import Saved
from gpu.launch import check, zeros


def forward(q: Any, k: Any, v: Any, beta: Any, S: Any) -> tuple[tuple[Any, Any], Saved]:
    """Return ((y, S), saved) for q, k (*batch, T, K), v (*batch, T, V), beta (*batch, T), S (*batch, K, V).

    Where q, k, v and so y are bfloat16, beta and S are float32. Raises TypeError and ValueError, as `gpu.launch.check`
    does.
    """
    check("delta_rule", dtypes="fdb", accumulators=["beta", "S"], q=q, k=k, v=v, beta=beta, S=S)
    return gated_delta_rule.forward(q, k, v, beta, zeros(beta, beta.shape), S)


def backward(saved: Saved, cotangents: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the cotangents of q, k, v, beta and S from those of y and of the last S."""
    dq, dk, dv, dbeta, _, dS = gated_delta_rule.backward(saved, cotangents)
    return dq, dk, dv, dbeta, dS
