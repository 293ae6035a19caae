"""State space models: layers that are linear recurrences."""
