"""The `imgclf` command: a file per command, which parses and prints; what it does is a function of `imgclf.workflows`.

JAX is imported inside of the commands' functions, so that --help and the commonest mistakes are answered at once.
"""

import gc
import sys

_TRAIN = ("train", "create", "study", "lr-find")


def main() -> None:
    """Runs the command; a user's mistake is one sentence and exit code 2."""
    if sys.argv[1:2] and sys.argv[1] in _TRAIN:
        from imgclf.runtime import platform_flags

        platform_flags.restart_with_huge_pages()
    # Imports make hundreds of thousands of objects that stay; looking through all of them again and again takes a second. What dies young
    # is still collected soon.
    gc.set_threshold(5_000, 10, 50)
    from imgclf.cli import commands

    commands.run()
