"""Raw CUDA kernels of the mechanisms, launched through CuPy, and an emulator that runs the same sources without a GPU.

`gpu.kernels` holds the sources and their wrappers, `gpu.launch` what they share, `gpu.emulator` the execution model of
CUDA on the host (slow, for tests), and `gpu.check`, `gpu.bench` and `gpu.build` the tools of `python -m gpu`.

Matrix products of float32 arrays are computed in float32 unless `gpu.precision.matmul_precision` allows tensor cores to
round their operands.
"""
