"""`imgclf explain`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run


def explain(  # noqa: PLR0913  (options by name)
    run: RunArgument,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER|IMAGES...", help="Pictures, or a folder of them; 500 at most.", show_default=False),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes; default: RUN/explain.html, or explain-2.html, …", show_default=False)
    ] = None,
    method: Annotated[
        str, typer.Option(help="hirescam, at about the cost of a prediction, or occlusion, some 170 times as much, for any network.")
    ] = "hirescam",
    class_name: Annotated[
        str, typer.Option("--class", metavar="NAME", help="A class to explain beside the predicted one.", show_default=False)
    ] = "",
    neighbours: Annotated[
        int | None,
        typer.Option(
            min=0, help="Nearest training images to show; default: 3, where the run's images are still there.", show_default=False
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to name per picture.")] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page at --out that is of something else.")] = False,
) -> None:
    """Shows what a finished run looked at in pictures, and which training pictures are nearest, as a page.

    Examples:

      imgclf explain runs/larger a.jpg b.png

      imgclf explain runs/larger PHOTOS --class lynx --out lynx.html

      imgclf explain runs/larger a.jpg --method occlusion --neighbours 0
    """
    check_run(run, *sources)
    from imgclf import outputs
    from imgclf.explanation.choices import check_method

    chosen = check_method(method)
    if out is not None:
        outputs.check_file(out, overwrite=True)  # whether it is of this run is known when that is read
    endings.quieten()
    from imgclf.workflows import explain as workflow  # and JAX: after --help and the mistakes above

    given: str | list[str] = sources[0] if len(sources) == 1 else sources
    workflow.explain(
        run,
        given,
        out,
        class_name=class_name,
        method=chosen,
        neighbours=neighbours,
        top_k=top_k,
        overwrite=overwrite,
    )
