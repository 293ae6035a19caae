"""Memories of fixed size: what was seen is written into a matrix and read back from it."""
