"""A run for others: bundles, their reproduction, model cards, the Hugging Face hub."""
