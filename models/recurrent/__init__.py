"""Nonlinear recurrent networks, computed token after token."""
