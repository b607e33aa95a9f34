"""The command line of `run.py`: that of `imgclf train`, with the quick start by default, and --study for that of `imgclf study`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import commands, endings
from imgclf.cli.options import CONFIG_HELP, ConfigCommand, Fields
from imgclf.cli.study import Engine, Jobs
from imgclf.cli.study import study as run_study
from imgclf.cli.train import Coordinator, Distributed, NumProcesses, ProcessId, TimeLimit, Workdir
from imgclf.cli.train import train as run_train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Parses the command line and does what it says; leaves the process."""
    commands.leave_by(app)


@app.command(cls=ConfigCommand)
def run(  # noqa: PLR0913  (options by name)
    config: Annotated[str, typer.Argument(metavar="[--config=]CONFIG", help=CONFIG_HELP)] = "quickstart",
    fields: Fields = None,
    workdir: Workdir = None,
    time_limit: TimeLimit = "",
    study: Annotated[str, typer.Option(help="A study, FILE.py[:ARGUMENT], instead of one experiment; see docs/studies.md.")] = "",
    engine: Engine = "local",
    jobs: Jobs = 1,
    distributed: Distributed = False,
    coordinator: Coordinator = "",
    num_processes: NumProcesses = 0,
    process_id: ProcessId = -1,
) -> None:
    """Runs one experiment: trains, evaluates and writes the report. The same as `imgclf train CONFIG`, and with --study as `imgclf study`.

    Given once more, a command continues an interrupted run. All fields stand in imgclf/config/fields.py.

    Examples:

      python run.py                                                   the built-in digits, in a minute

      python run.py --config=configs/folder.py:PHOTOS                 your folder: PHOTOS/CLASS/*.jpg

      python run.py --config=configs/csv.py:labels.csv                your CSV: columns path, label

      python run.py --config=configs/cifar10_resnet.py --workdir=runs/resnet --config.optimizer.learning_rate=0.05

      python run.py --config=runs/resnet/config.json --workdir=runs/again
    """
    with endings.told(continues=True):
        if study:
            run_study(study, Path(workdir) if workdir else None, engine, jobs)
        else:
            run_train(
                config,
                fields,
                workdir,
                time_limit,
                distributed=distributed,
                coordinator=coordinator,
                num_processes=num_processes,
                process_id=process_id,
            )
