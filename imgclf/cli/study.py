"""`imgclf study`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.errors import UserError

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
    if not Path(file.partition(":")[0]).expanduser().is_file():
        raise UserError(f"There is no study file {file.partition(':')[0]!r}: check the path, from {Path.cwd()}.")
    endings.quieten()
    from imgclf.runtime import compilation_cache
    from imgclf.studies import run, spec

    asked = spec.load(file)
    compilation_cache.enable()
    with endings.stops():
        summary = run.run(asked, workdir or Path("runs") / Path(file.partition(":")[0]).stem, engine=engine, jobs=jobs)
    if summary["failures"]:
        raise typer.Exit(1)
