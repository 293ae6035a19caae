"""Mutation testing of the statements: `python -m proofs mutate` changes the code, and a statement has to fail."""
