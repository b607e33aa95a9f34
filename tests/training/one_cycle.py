"""fastai's one-cycle policy, as its code has it."""

import numpy as np


def fastai_combined_cosine(step: int, total: int, start: float, middle: float, end: float) -> float:
    """As fastai's `combined_cos(0.25, start, middle, end)` has it."""
    position = step / total
    low, high, here = (start, middle, position / 0.25) if position < 0.25 else (middle, end, (position - 0.25) / 0.75)
    return low + (1 + np.cos(np.pi * (1 - here))) * (high - low) / 2
