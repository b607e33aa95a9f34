"""`imgclf push`."""

from typing import Annotated

import typer

from imgclf.cli import endings
from imgclf.cli.options import RunArgument, check_run, is_export


def push(
    run: RunArgument,
    address: Annotated[str, typer.Argument(metavar="hf://USER/NAME", help="The repository on the Hugging Face hub.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Only you, and whom you let in, may see a repository that is made.")] = False,
    revision: Annotated[str, typer.Option(help="A branch of the repository; hf://USER/NAME@BRANCH is the same. Default: main.")] = "",
    export: Annotated[str, typer.Option(help="A form that goes along: onnx | stablehlo | timm | keras.")] = "",
    licence: Annotated[str, typer.Option(help="Of the trained model; default: that of the weights that it began with.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a repository that holds other things.")] = False,
) -> None:
    """Puts a finished run's model, or an export, on the Hugging Face hub, with a card, in one commit.

    imgclf.load("hf://USER/NAME") opens a model anywhere. An export's files stand at the root of its repository, as timm wants them:
    timm.create_model("hf-hub:USER/NAME", pretrained=True). The token comes from HF_TOKEN, or from hf auth login. Photos are not pushed.

    Examples:

      imgclf push runs/photos hf://USER/photos --private

      imgclf push runs/photos hf://USER/photos --revision v2 --export onnx --licence cc-by-4.0

      imgclf push runs/photos/exports/timm hf://USER/photos-timm
    """
    exported = is_export(run)
    if not exported:
        check_run(run)
    endings.quieten()
    from imgclf.publishing import hub  # and JAX: after --help and the mistakes above

    place = f"{address}@{revision}" if revision else address
    page = hub.push(run, place, private=private, export=export, licence=licence, overwrite=overwrite)
    use = "its README.md says how" if exported else f'imgclf.load("{place}")'
    typer.echo(f"{page}\nTo use it: {use}")
