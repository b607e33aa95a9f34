"""Programs that are copied into exports, and run there with Pillow, NumPy and an engine alone: nothing in them may import imgclf."""
