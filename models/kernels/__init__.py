"""Numba kernels of the mechanisms, on raw NumPy arrays, and `dispatch`, which chooses between them and those of CUDA.

A kernel is a module with `forward(*inputs, **options)`, which returns (outputs, residuals), and
`backward(residuals, cotangents)`, which returns the cotangents of the inputs. What several kernels share is in
`linear_attention_core`, `delta_rule_core`, `recurrent_core`, `tiles`, `spectra`, `gelu_tanh`, `titans_gates` and
`titans_norm`.
"""
