"""How a command ends: 0 done, 2 the user's mistake, 75 another process of the training is lost, 130 Ctrl-C, 143 SIGTERM."""

import contextlib
import errno
from collections.abc import Iterator

import typer

from imgclf.errors import UserError

# Commands that find what an interrupted one has done; the others begin anew, if with features that are cached.
CONTINUING = (("train",), ("study",), ("predict",), ("bundle",), ("reproduce",), ("openimages",), ("data", "balance"))


@contextlib.contextmanager
def told(*, continues: bool = False) -> Iterator[None]:
    """Turns a full disk into the user's mistake, and Ctrl-C into exit code 130, with a sentence each instead of a traceback.

    Args:
      continues: whether the command, given again, continues what was interrupted.
    """
    again = "give the same command to continue" if continues else "give the same command again"
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"Interrupted. {again.capitalize()}." if continues else "Interrupted.", err=True)
        raise typer.Exit(130) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or "while writing"
        raise UserError(f"The disk is full ({place}); free some space and {again}.") from error


@contextlib.contextmanager
def stops(again: str = "Give the same command to continue.") -> Iterator[None]:
    """Turns a training that was asked to stop, and has saved its state, into 128 + the signal's number. Imports JAX.

    Args:
      again: how the user continues.
    """
    from imgclf.training.stopping import Interrupted

    try:
        yield
    except Interrupted as stop:
        typer.echo(f"Stopped at step {stop.step}; the state is saved. {again}", err=True)
        raise typer.Exit(128 + stop.signum) from None


def quieten() -> None:
    """Keeps the libraries' own remarks out of the commands' output."""
    import logging

    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)  # orbax and grain tell of their inner life
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
