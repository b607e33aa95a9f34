"""`imgclf robustness`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import Overwrite, RunArgument, check_run


def robustness(
    run: RunArgument,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="[DATA]", help="Labeled images, a folder or a table; default: the run's test images.", show_default=False),
    ] = None,
    corruptions: Annotated[
        str, typer.Option(help="Some of gaussian_noise, gaussian_blur, brightness, dimness, contrast, jpeg, rotation; default: all.")
    ] = "",
    severities: Annotated[str, typer.Option(help="Some of 1 to 5.")] = "1,2,3,4,5",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for robustness.html and robustness.json. Default: RUN, or RUN/robustness-DATA.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Tests a finished run on corrupted photos, as ImageNet-C has them, and on every EXIF orientation; leaves a page and a JSON file.

    Examples:

      imgclf robustness runs/larger

      imgclf robustness runs/larger PHOTOS --corruptions gaussian_blur,jpeg --severities 1,3,5
    """
    from imgclf.errors import UserError

    try:
        asked = [int(severity) for severity in severities.split(",")]
    except ValueError:
        raise UserError(f"--severities={severities!r} is no list of whole numbers: write 1,3,5.") from None
    check_run(run, data)
    names = [name.strip() for name in corruptions.split(",")] if corruptions else None
    endings.quieten()
    from imgclf import formatting  # and JAX: after --help and the mistakes above
    from imgclf.evaluation import metrics
    from imgclf.evaluation.corruptions import CORRUPTIONS
    from imgclf.workflows import robustness as workflow
    from imgclf.workflows.console import or_terminal

    console = or_terminal(None)
    chosen = names or tuple(CORRUPTIONS)
    found = workflow.robustness(run, data, corruptions=chosen, severities=asked, out=out, overwrite=overwrite, console=console)
    results, clean, turned = found.results, found.results["clean"], found.results["orientations"]
    headline = {"top1": clean["top1"], "top1_ci95": clean["top1_ci95"], "split": results["split"], "n": results["n"]}
    console.print(f"Clean: {metrics.headline(headline)}")
    drop = 100 * results["mean_drop"]
    below = f"{abs(drop):.1f} points {'below' if drop >= 0 else 'above'} clean"
    console.print(
        f"[bold]Corrupted: {formatting.percent(results['mean_top1'])}[/] (95 % interval {formatting.interval(results['mean_top1_ci95'])}), "
        f"{below}. EXIF: {turned['same']} of {turned['images']} photos alike in 8 orientations."
    )
    for note in results["notes"]:
        console.print(f"[yellow]{note}[/]")
    console.print(f"Page: {found.page}")
