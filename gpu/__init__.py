"""Raw CUDA kernels of the hot paths, and thin wrappers that launch them on arrays.

A wrapper takes CuPy arrays, on which it launches through `cupy.RawModule`, or NumPy arrays, on which it runs the same
source thread by thread on the host (`gpu.host`): slow, exact about what a thread may do, and there for the tests.

Matrix products of float32 keep all bits unless `gpu.precision.matmul_precision` allows fewer, for tensor cores.
"""
