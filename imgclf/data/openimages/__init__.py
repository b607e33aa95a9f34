"""Open Images, from class names to a cropped, licensed data set."""
