"""What two processes say to each other in test_hosts.py."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd

from imgclf.errors import UserError
from imgclf.runtime import partners


def main(coordinator: str, index: int, out: str) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")
    with partners.together(SystemExit, coordinator, 2, index) as joined:
        said = {
            "gathered": [len(part) for part in joined.gather(bytes(index * (9 << 20)))],  # longer than one value may be
            "broadcast": joined.broadcast(str(index).encode()).decode(),
            "tables": [part["name"].tolist() for part in joined.gather_table(pd.DataFrame({"name": [f"of {index}"] * (index + 1)}))],
            "any": joined.any_of(np.arange(10) % (index + 3) == 0).tolist(),
            "share": joined.share(np.arange(5)).tolist(),
        }
        joined.check_same_rows(["a\t1", "b\t2"], "images")
        try:
            joined.check_same_rows(["a\t1", *["b\t2"] * index], "images")
        except UserError as error:
            said["different"] = str(error)
        Path(out).write_text(json.dumps(said))
        if index == 1:
            raise UserError("The disk of this host is gone.")
        joined.wait()  # for a process that never comes


def terminated(coordinator: str, index: int) -> None:
    """Process 1 gets SIGTERM where nobody trains, while 0 waits for it."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    with partners.together(SystemExit, coordinator, 2, index) as joined:
        if index == 0:
            joined.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
