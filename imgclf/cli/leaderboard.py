"""`imgclf leaderboard`."""

from pathlib import Path
from typing import Annotated

import typer

from imgclf.cli.options import RunArgument, check_run
from imgclf.errors import UserError


def leaderboard(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="Also write the table, with exact numbers.", show_default=False)] = None,
) -> None:
    """Shows what `imgclf create --time-limit` tried, and why it kept what it did.

    Examples:

      imgclf leaderboard runs/photos

      imgclf leaderboard runs/photos --out leaderboard.csv
    """
    check_run(run)
    from imgclf import files
    from imgclf.reporting import leaderboard as boards  # and pandas: after --help and the mistakes above

    table, shown = boards.read(run), boards.section(run)
    if table is None or shown is None:
        raise UserError(f"{run} had no time limit, so that nothing else was tried: imgclf create --time-limit '10 minutes' tries more.")
    if out is not None and out.suffix != ".csv":
        raise UserError(f"--out {out} is no table: name a file that ends in .csv.")
    rows = [("CANDIDATE", "KEPT", "TOP-1", "95 % INTERVAL", "ON", "SECONDS", "IMAGES/S", "DECISION")]
    for row in shown["rows"]:
        kept = "kept" if row["kept"] else ""
        rows.append((row["name"], kept, row["score"], row["bounds"], row["judged"], row["seconds"], row["speed"], row["decision"]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    typer.echo(f"{shown['used']} of {shown['limit']}.")
    if out is not None:
        files.write_text(out, table.to_csv(index=False))
        typer.echo(f"Table: {out}")
