"""State spaces: a linear recurrence as the layer."""
