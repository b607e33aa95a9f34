"""An export in words: its row in the table of exports, and the sentences under it."""

from collections.abc import Sequence

from imgclf.exports.folder import Export

_HEADER = ("FORMAT", "PRECISION", "SIZE MB", "COLD START s", "1 IMAGE ms", "16 IMAGES ms", "TOP-1 AGREEMENT", "GREATEST DIFFERENCE")


def table(exports: Sequence[Export]) -> str:
    """The table of exports, with a line per export."""
    rows = [_HEADER, *map(_row, exports)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def _row(export: Export) -> tuple[str, ...]:
    of = export.table
    numbers = [of["megabytes"], of.get("cold_start_s"), of.get("ms_batch_1"), of.get("ms_batch_16")]
    agreement, difference = of["top1_agreement"], of["max_difference"]
    return (
        export.format,
        export.precision,
        *("–" if n is None else f"{n:,.2f}" for n in numbers),
        "–" if agreement is None else f"{agreement:.1%}",
        "–" if difference is None else f"{difference:.0e}",
    )


def sentences(export: Export) -> list[str]:
    """What else there is to know of an export."""
    of = export.table
    batches = ", ".join(map(str, of["batches"]))
    lines = [f"Passed: {of['images']} real images, {batches} at a time, in a process without imgclf."]
    if not of["images"]:
        lines = [
            f"Its tensors, read back, are the run's bit by bit; {export.format} was not at hand to answer for itself: --python names an "
            "interpreter that has it."
        ]
    lines += [sentence for sentence in (of.get("cost", ""), export.about["note"]) if sentence]
    return [*lines, f"The export is in {export.folder}."]
