"""CUDA sources (`*.cu`, `*.cuh`), and a wrapper a mechanism that launches them on CuPy or NumPy arrays.

A wrapper has `forward(*inputs, **options)`, which returns (outputs, residuals), and `backward(residuals, cotangents)`,
which returns the cotangents of the inputs. Arrays are C-contiguous, on one device and of one dtype.
"""
