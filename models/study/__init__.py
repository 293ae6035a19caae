"""The study: what was proven, what was trained, what it costs, and a page that tells it."""
