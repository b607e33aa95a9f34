"""Why a classifier answers as it does: what it looked at, which training images are near, a map of all."""
