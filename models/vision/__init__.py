"""Image models: test-time training by rotation prediction."""
