"""Side-by-side timings against what people use instead: `python -m benchmarks list|run|table`."""
