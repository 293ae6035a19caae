"""Softmax attention, and feature maps that approximate it."""
