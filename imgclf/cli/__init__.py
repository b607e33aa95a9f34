"""The commands of `imgclf`, a file each; main.py puts them together. JAX is imported inside the functions, after --help."""
