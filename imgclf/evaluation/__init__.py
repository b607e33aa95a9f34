"""What a classifier is worth: metrics with intervals, calibration, paired comparisons, robustness and label errors."""
