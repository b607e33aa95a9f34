"""`imgclf robustness`."""

from pathlib import Path
from typing import Annotated

import typer

_ORIENTED = 50  # photos that are stored in all orientations


def robustness(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Argument(metavar="[DATA]", help="Labeled images, a folder or a table; default: the run's test images.", show_default=False),
    ] = None,
    corruptions: Annotated[
        str, typer.Option(help="Some of gaussian_noise, gaussian_blur, brightness, dimness, contrast, jpeg, rotation; default: all.")
    ] = "",
    severities: Annotated[str, typer.Option(help="Some of 1 to 5.")] = "1,2,3,4,5",
    out: Annotated[
        Path | None, typer.Option(help="Folder for robustness.html and robustness.json. Default: RUN, or runs/DATA-robustness.")
    ] = None,
) -> None:
    """Tests a finished run on corrupted photos, as ImageNet-C has them, and on every EXIF orientation; leaves a page and a JSON file.

    Examples:

      imgclf robustness runs/larger

      imgclf robustness runs/larger PHOTOS --corruptions gaussian_blur,jpeg --severities 1,3,5
    """
    from imgclf.errors import UserError
    from imgclf.evaluation import corruptions as kinds
    from imgclf.evaluation import robustness as statistics

    try:
        asked = [int(severity) for severity in severities.split(",")]
    except ValueError:
        raise UserError(f"--severities={severities!r} is no list of whole numbers: write 1,3,5.") from None
    names = [name.strip() for name in corruptions.split(",")] if corruptions else list(kinds.CORRUPTIONS)
    tested = statistics.conditions(names, asked)
    folder = out or (run if data is None else Path("runs") / f"{data.stem}-robustness")

    import json

    import numpy as np
    from rich.console import Console

    from imgclf import formatting, image_data
    from imgclf.deploy import scoring
    from imgclf.deploy.classifier import load
    from imgclf.evaluation import metrics
    from imgclf.reporting import pages
    from imgclf.reporting import robustness as page
    from imgclf.workflows import robustness as runner

    pages.check_target(folder / page.PAGE)
    predictor = load(run)
    console = Console(soft_wrap=True, highlight=False)
    if data is None:
        split = json.loads((run / "results.json").read_text())["split"]
        dataset = runner.images_of(predictor, split)
    else:
        split, dataset = "", image_data.load_images(data, verbose=False).dataset
    labels = scoring.labels_of(predictor, dataset)
    answers = runner.corrupted_probabilities(predictor, dataset, tested, console).argmax(-1)
    correct = {condition: (answers[:, i] == labels)[None] for i, condition in enumerate(tested)}
    rows = np.unique(np.linspace(0, len(labels) - 1, min(_ORIENTED, len(labels))).astype(int))
    turned = statistics.orientations(runner.turned_probabilities(predictor, dataset, rows, console))
    notes = scoring.warnings_of(predictor, dataset) if data is not None or split != "test" else []
    about = {"name": predictor.config.name, "split": split, "n": len(labels), "notes": notes}
    results = about | statistics.summarize(correct) | {"orientations": turned}
    example = statistics.corrupted_views(dataset, predictor.config, tested)
    written = page.write(folder, results, tested, [example[i] for i in range(len(tested))])
    console.print(f"Clean: {metrics.headline({'top1': results['clean']['top1'], 'top1_ci95': results['clean']['top1_ci95'], **about})}")
    console.print(
        f"[bold]Corrupted: {formatting.percent(results['mean_top1'])}[/] (95 % interval {formatting.interval(results['mean_top1_ci95'])}), "
        f"{100 * results['mean_drop']:.1f} points below clean. EXIF: {turned['same']} of {turned['images']} photos alike in 8 orientations."
    )
    for note in notes:
        console.print(f"[yellow]{note}[/]")
    console.print(f"Page: {written}")
