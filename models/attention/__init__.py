"""Attention: every query looks at every key it may see."""
