"""`imgclf configs`."""

import ast

import typer


def configs() -> None:
    """Lists the configs that ship with imgclf, by the names that `imgclf train NAME` takes.

    Examples:

      imgclf configs
    """
    from imgclf.config import shipped

    files = shipped()
    width = max(map(len, files), default=0)
    for name, file in files.items():
        about = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        typer.echo(f"{name.ljust(width)}  {about.partition(chr(10))[0]}")
    typer.echo(f"They stand in {next(iter(files.values())).parent}: copy one to begin a config of your own.")
