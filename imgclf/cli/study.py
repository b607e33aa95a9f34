"""`imgclf study`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings

Engine = Annotated[str, typer.Option(help="Where the runs are made: local, or a cluster that sees the same files: ray | dask.")]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, each in a process of its own where more than 1.")]


def study(
    file: Annotated[str, typer.Argument(metavar="FILE.py[:ARGUMENT]", help="The study.", show_default=False)],
    workdir: Annotated[
        Path | None, typer.Option(help="Folder of the study; it is made, or continued. Default: runs/FILE.", show_default=False)
    ] = None,
    engine: Engine = "local",
    jobs: Jobs = 1,
) -> None:
    """Runs a study: arms × seeds × folds of one experiment, compared by paired statistics; given once more, it runs what is missing.

    A study file defines get_study(); docs/studies.md says how.

    Examples:

      imgclf study my_study.py --jobs 2

      imgclf study experiments/freezing.py:PHOTOS --workdir runs/freezing
    """
    from imgclf.studies import spec

    asked = spec.load(file)
    endings.quieten()
    from imgclf.runtime import compilation_cache  # and JAX: after the mistakes above
    from imgclf.studies import run

    compilation_cache.enable()
    with endings.stops():
        summary = run.run(asked, workdir or Path("runs") / Path(file.partition(":")[0]).stem, engine=engine, jobs=jobs)
    if summary["failures"]:
        raise typer.Exit(1)
