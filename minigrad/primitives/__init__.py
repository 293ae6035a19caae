"""Primitives and their vector–Jacobian products, a module for each area."""
