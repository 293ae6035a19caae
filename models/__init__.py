"""Sequence mechanisms, each written once, and what is built on them."""
