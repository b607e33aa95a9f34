"""Packs: a data set in a few large files, made once, and read in any order: `imgclf data pack`, and the source "packed"."""
