"""Whole models written in another framework; a workload imports them inside `setup`."""
