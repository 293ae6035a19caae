"""Associative memories of fixed size: linear attention, delta rules, test-time training, Hopfield networks."""
