"""Sequence mechanisms, each written once, and the models, tasks and studies built on them."""
