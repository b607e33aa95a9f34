"""Worker processes import the user's script once more: where it trains without a main guard, they would train, too."""

import multiprocessing
import os
import re

from imgclf.errors import UserError

_EXIT_CODE = 77  # of a worker that finds itself training; its parent tells of it


def leave_workers() -> None:
    """Ends a worker process that is still importing the user's script: what the script does is the parent's work."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself tells that it imports the script
        os._exit(_EXIT_CODE)


def explained(error: Exception) -> UserError | None:
    """The error to raise where a worker has ended for that reason; None where `error` has another."""
    if not re.search(rf"exit code {_EXIT_CODE}\b", str(error)):
        return None
    return UserError(
        "config.loader.workers starts processes that import your script again, and it trains while it is imported: put what it does into "
        'a block that begins with  if __name__ == "__main__":  or set loader.workers=0, which uses threads.'
    )
