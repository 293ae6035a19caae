"""The calculus: every primitive beside its adjoint, one chapter a file."""
