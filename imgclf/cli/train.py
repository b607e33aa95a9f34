"""`imgclf train`."""

import contextlib
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields

Workdir = Annotated[
    str | None,  # not Path, to which an empty name is the current folder
    typer.Option(
        help="Folder of the run, or its URL; it is made, or continued. Default: runs/NAME, after config.name.", show_default=False
    ),
]
Distributed = Annotated[bool, typer.Option("--distributed", help="Start jax.distributed: one such command per host, with one --workdir.")]
Coordinator = Annotated[str, typer.Option(help="--distributed outside SLURM and TPU pods: HOST:PORT of process 0.")]
NumProcesses = Annotated[
    int, typer.Option("--num-processes", "--num_processes", help="--distributed outside SLURM and TPU pods: how many processes there are.")
]
ProcessId = Annotated[
    int, typer.Option("--process-id", "--process_id", help="--distributed outside SLURM and TPU pods: which one this is, from 0.")
]


TimeLimit = Annotated[
    str,
    typer.Option(help="Such as '10 minutes': training that is not done by then ends where it is, and is evaluated.", show_default=False),
]


def train(  # noqa: PLR0913  (options by name)
    config: ConfigArgument,
    fields: Fields = None,
    workdir: Workdir = None,
    time_limit: TimeLimit = "",
    distributed: Distributed = False,
    coordinator: Coordinator = "",
    num_processes: NumProcesses = 0,
    process_id: ProcessId = -1,
) -> None:
    """Trains by a config, evaluates, and writes the report; given once more, it continues an interrupted run.

    `imgclf configs` lists the shipped configs. All fields stand in imgclf/config/fields.py. With --distributed, --coordinator,
    --num-processes and --process-id start training over several hosts; SLURM and TPU pods need --distributed only.

    Examples:

      imgclf train quickstart

      imgclf train folder:PHOTOS --set data.image_size=128 --set train.duration=50

      imgclf train finetune:PHOTOS,model=resnet50 --workdir runs/larger

      imgclf train folder:s3://BUCKET/PHOTOS --workdir s3://BUCKET/runs/photos

      imgclf train my_config.py --set optimizer.learning_rate=0.05

      imgclf train finetune:PHOTOS --time-limit "10 minutes"

      imgclf train runs/larger --set seed=1 --workdir runs/larger-seed1
    """
    from imgclf.config import load_config

    asked = load_config(config, fields or [])
    from imgclf.workflows import checks  # and what reads data: after the mistakes in the config's name and fields
    from imgclf.workflows import time_limit as time_limits

    checks.check_start(asked, workdir)
    if time_limit:
        time_limits.seconds(time_limit, "--time-limit")
    endings.quieten()
    from imgclf.runtime import compilation_cache, partners  # and JAX: after --help and the mistakes above
    from imgclf.training.stopping import Interrupted
    from imgclf.workflows import train as workflow

    with endings.stops(), contextlib.ExitStack() as stack:
        if distributed:
            stack.enter_context(partners.together(Interrupted, coordinator, num_processes, process_id))
        compilation_cache.enable()
        workflow.train(asked, workdir, time_limit=time_limit or None)
