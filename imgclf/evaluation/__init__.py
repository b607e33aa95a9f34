"""What a classifier is worth: metrics with their intervals, and calibration."""
