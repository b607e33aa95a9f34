"""`imgclf plan`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import ConfigArgument, Fields, Overwrite


def plan(  # noqa: PLR0913  (options by name)
    config: ConfigArgument,
    topology: Annotated[
        list[str],
        typer.Option(help="CHIP:SHAPE, such as v5e:4x4, v6e:16x16, h100:8, or 2*v5e:16x16 for two slices; given again, they are compared."),
    ],
    fields: Fields = None,
    images: Annotated[int | None, typer.Option(help="Training images, where the data aren't here.", show_default=False)] = None,
    classes: Annotated[int | None, typer.Option(help="Classes, where the data aren't here.", show_default=False)] = None,
    batch_per_chip: Annotated[
        int | None, typer.Option(help="Images of a batch for each chip, instead of the config's batches for all.", show_default=False)
    ] = None,
    programs: Annotated[
        list[str] | None,
        typer.Option(help="train, eval or features; may be given again. Default: those that the training runs.", show_default=False),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compile what is suggested for a training that does not fit.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for plan.html and plan.json. Default: RUN/plan, or runs/NAME-plan.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Says what a training takes on TPUs and GPUs that are not here: memory, walls, speed at most, hours at least.

    Its own programs are compiled for them, which takes minutes the first time; nothing runs. The compilers are extras:
    pip install "imgclf\\[plan-tpu]" and "imgclf\\[plan-cuda]".

    Examples:

      imgclf plan imagenet_resnet50:PHOTOS --topology v5e:4x4 --topology h100:8 --images 1281167 --classes 1000

      imgclf plan large_vgg16:PHOTOS --topology v5e:16x16 --batch-per-chip 64 --set mesh.fsdp=4

      imgclf plan runs/larger --topology v6e:2x2 --programs train
    """
    from imgclf.config import load_config, validation
    from imgclf.planning import topologies

    validation.validate(load_config(config, fields or []))
    for name in topology:
        topologies.parse(name)
    endings.quieten()
    from rich.table import Table

    from imgclf.reporting import plan as page
    from imgclf.workflows import plan as workflow  # and JAX: after --help and the mistakes above
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    planned = workflow.plan(
        config,
        topology,
        fields=fields or [],
        images=images,
        classes=classes,
        batch_per_chip=batch_per_chip,
        programs=programs or (),
        verify=verify,
        out=out,
        overwrite=overwrite,
        console=console,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column()
    table.add_column(style="dim")
    for one in planned.results["topologies"]:
        table.add_column(one["topology"])
    for row in page.rows(planned.results):
        table.add_row(row.label, row.kind, *row.values, style="bold" if row.strong else "")
    console.print(table)
    for one in planned.results["topologies"]:
        if not one["compiler"]:
            console.print(
                f"{workflow.missing_compiler(one['topology'])} It was only traced{', and nothing verified' if verify else ''}.",
                style="yellow",
                markup=False,
            )
        for finding in one["findings"]:
            color = "red" if finding["kind"] == "fault" else "default"
            console.print(f"[{color}]{one['topology']}:[/] ", end="")
            console.print(finding["text"], markup=False)
        for each in one["suggestions"]:
            console.print(f"{one['topology']} would fit by {each['text']}{_verified(each)}", markup=False)
    console.print(page.LEGEND, style="dim", markup=False)
    console.print(f"Page: {planned.page}", markup=False)


def _verified(suggestion: dict) -> str:
    if "verified" not in suggestion:
        return " (an estimate; --verify compiles it)"
    return f" (compiled: {'it fits' if suggestion['verified']['fits'] else 'it does not fit'})"
