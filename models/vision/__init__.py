"""Vision models: ViT, CLIP, Segment Anything, and test-time training by rotation prediction."""
