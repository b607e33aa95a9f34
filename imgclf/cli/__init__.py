"""The commands of `imgclf`, a file each; `imgclf/cli.py` puts them together. JAX is imported inside the functions, after --help."""
