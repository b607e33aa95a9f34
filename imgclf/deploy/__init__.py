"""From a run to a classifier in use."""
