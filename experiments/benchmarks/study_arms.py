"""What an arm of a study costs beside its training, and how many programs are compiled for it.

Eight short runs of a small CNN on the built-in digits, in one process with an empty compilation cache: four learning rates x two seeds.

    python experiments/benchmarks/study_arms.py
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
from rich.console import Console

from imgclf.config import default_config
from imgclf.studies import Study, levels, run, spec

_COMPILED = "/jax/core/compile/backend_compile_duration"


def main() -> None:
    compilations: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compilations.append(seconds) if event == _COMPILED else None
    )
    base = default_config()
    base.data.source, base.data.image_size = "digits", (32, 32)
    base.model.cnn.widths = (16, 32, 64)
    base.train.duration = base.train.eval_every = base.train.checkpoint_every = "30 steps"
    arms = levels("optimizer.learning_rate", (1e-3, 3e-3, 1e-2, 3e-2))
    run_one, told = run._run_one, []

    def timed(one: spec.Run, *where: Path):
        before, start = len(compilations), time.perf_counter()
        outcome = run_one(one, *where)
        told.append((time.perf_counter() - start, len(compilations) - before))
        print(f"{one.arm}, seed {one.seed}: {told[-1][0]:.2f} s, {told[-1][1]} compilations", flush=True)
        return outcome

    run._run_one = timed
    with tempfile.TemporaryDirectory() as folder:
        os.environ["IMGCLF_CACHE"] = folder
        run.run(Study(base, arms, seeds=2), Path(folder) / "study", console=Console(quiet=True))
    rest = told[1:]
    print(
        f"after the first: {statistics.median(seconds for seconds, _ in rest):.2f} s an arm, {sum(count for _, count in rest)} compilations"
    )


if __name__ == "__main__":
    main()
