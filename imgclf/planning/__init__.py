"""What a training takes on a described TPU or GPU: its real programs, compiled ahead of time, and what their texts say."""
