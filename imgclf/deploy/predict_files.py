"""Predictions of any number of image files: streamed, and continued where they were interrupted.

Rows are kept in OUT.part/ as they are done, in parquet files named after their first row; at the end they are put together and moved to
OUT, beside which OUT.json says what it was made of. The same command therefore continues, and its result does not depend on where it was
stopped.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from imgclf import files, formatting, progress
from imgclf.deploy.inputs import Inputs
from imgclf.deploy.options import Options
from imgclf.deploy.predictor import Answers, Predictor
from imgclf.errors import UserError

SUFFIXES = (".csv", ".parquet")
_PART_SECONDS, _PART_ROWS = 15.0, 16_384  # a part is written when either is reached
_ROW_GROUP = 65_536  # of the parquet file
SHOWN = 10  # rows that are few enough to be told beside the table
_FLAGS = {"batch_size": "--batch"}  # the options whose flag is not their name


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was done.

    Attributes:
      images: rows of the table.
      predicted: those of images that could be read.
      before: rows that an earlier start had done already.
      seconds: that this start took.
      reasons: how many images can't be read, by reason.
    """

    images: int
    predicted: int
    before: int
    seconds: float
    reasons: Counter[str]


def check_out(out: Path) -> None:
    """Raises a UserError unless predictions can be written under this name."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out={out} must end in .csv or .parquet.")
    if out.is_dir():
        raise UserError(f"--out={out} is a folder: name a file in it, such as {out / ('predictions' + out.suffix)}.")


def predict_files(
    predictor: Predictor,
    inputs: Inputs,
    out: Path,
    options: Options,
    console: Console,
    *,
    overwrite: bool = False,
    part_rows: int = _PART_ROWS,
) -> Summary:
    """Writes the predictions of all inputs, in their order, to `out`.

    Its columns are those of `Predictor.table`, then the list's other columns (with `list_` before a name that is taken).

    Args:
      predictor: the classifier.
      inputs: the images.
      out: a path that ends in .csv or .parquet; folders above it are made.
      options: what the rows say.
      console: shows the progress.
      overwrite: whether to replace an `out` (or what is begun of it) that was made of something else.
      part_rows: rows that are written at a time, at most.

    Returns:
      What was done. Where `out` was complete already, nothing is.

    Raises:
      UserError: if `out` exists and was made of something else, another process writes it, or the disk is full.
    """
    check_out(out)
    identity = _identity(predictor, inputs, options)
    folder, about = files.part_of(out), out.with_name(out.name + ".json")
    if out.exists() and not overwrite:
        old = _check_same(out, about, identity)
        return Summary(len(inputs), old["predicted"], len(inputs), 0.0, Counter(old["reasons"]))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with files.locked(folder / ".lock", f"Another process is writing {folder}: wait for it, or choose another --out."):
            rows = _Rows(predictor, inputs, options)
            parts = _Parts(folder, rows.schema)
            parts.begin(identity, overwrite)
            before = parts.sound_rows(len(inputs))
            start = time.perf_counter()
            _predict(rows, parts, before, part_rows, console)
            seconds = time.perf_counter() - start
            aside, reasons = parts.assemble(out.suffix.lower())
            identity |= {"predicted": len(inputs) - sum(reasons.values()), "reasons": dict(reasons), "sha256": _sha256(aside)}
            files.write_json(about, identity)
            files.finish(aside, out)
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} can't be written ({error.strerror or error}): mend that, and give the same command to continue."
        ) from error
    return Summary(len(inputs), identity["predicted"], before, seconds, reasons)


def describe(summary: Summary, ignored: Counter[str], out: Path) -> str:
    """Says in a few sentences what was done."""
    done = summary.images - summary.before
    if not done and summary.before:
        text = [f"{out} was complete already."]
    else:
        earlier = f" ({summary.before:,} of them by an earlier start)" if summary.before else ""
        rate = f"{formatting.duration(summary.seconds)}, {formatting.number(done / summary.seconds)} images/s"
        text = [f"{formatting.count(summary.images, 'row')} in {out}{earlier}; {rate}."]
    if summary.reasons:
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in summary.reasons.most_common())
        bad = summary.images - summary.predicted
        text.append(f"{formatting.count(bad, 'image')} could not be read ({reasons}): see the column reason.")
    if ignored:
        text.append(f"Ignored {', '.join(f'{count:,} {kind}' for kind, count in sorted(ignored.items()))}.")
    return " ".join(text)


def answers(out: Path, options: Options) -> list[str]:
    """A line for each row of a finished table: the image, its class and the probability of that, or why there is none."""
    # all as text: a class may be called 0
    table = pd.read_parquet(out) if out.suffix.lower() == ".parquet" else pd.read_csv(out, dtype=str, keep_default_na=False)
    lines = []
    for row in table.to_dict("records"):
        if not row["predicted"]:
            said = f"no answer, {row['reason'].replace('_', ' ')}"
        else:
            said = f"{row['predicted']}, {formatting.percent(float(row['probability']))}"
            if options.threshold is not None and row["answer"] != row["predicted"]:
                said += f"; {row['answer']}"
        name = "".join(letter if letter.isprintable() else "?" for letter in str(row["id"]))
        lines.append(f"{name}: {said}")
    return lines


def _identity(predictor: Predictor, inputs: Inputs, options: Options) -> dict[str, Any]:
    """What the predictions are made of, in JSON's types; OUT belongs to it where the three parts are equal."""
    return {
        "model": predictor.sha256,
        "images": {"count": len(inputs), "sha256": inputs.sha256},
        "options": dataclasses.asdict(options) | {"reduced_decode": predictor.reduced_decode},
    }


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """In which way two identities differ; "" where they don't."""
    if old.get("model") != new["model"]:
        return "another run, or by this one before it changed"
    if old.get("images") != new["images"]:
        return f"other images ({old.get('images', {}).get('count', 0):,}, now {new['images']['count']:,}, or with other contents)"
    before, now = old.get("options", {}), new["options"]
    flags = {name: _FLAGS.get(name, f"--{name.replace('_', '-')}") for name in now}
    changed = [f"{flags[name]}={before.get(name)}" for name in now if before.get(name) != now[name]]
    return f"other options ({', '.join(changed)})" if changed else ""


def _check_same(out: Path, about: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Returns what stands beside a finished `out`, or raises a UserError if it is not of this command."""
    way_out = "choose another --out, or give --overwrite to replace it."
    old = _read_json(about)
    if old is None:
        raise UserError(f"{out} exists and is not known to be of this command (it has no {about.name} beside it): {way_out}")
    if difference := _difference(old, identity):
        raise UserError(f"{out} was made with {difference}: {way_out}")
    if old.get("sha256") != _sha256(out):
        raise UserError(f"{out} was changed after it was made: {way_out}")
    return old


class _Rows:
    """What the rows of the table say, and the types of their columns, which are the same whatever the first images are."""

    def __init__(self, predictor: Predictor, inputs: Inputs, options: Options):
        self.predictor, self.inputs, self.options = predictor, inputs, options
        empty = predictor.table([], predictor.no_answers, options)
        fields = [pa.field(name, _type_of(name)) for name in map(str, empty)]
        if inputs.others is not None:
            taken = {field.name for field in fields}
            for field in pa.Schema.from_pandas(inputs.others, preserve_index=False):
                fields.append(field.with_name(f"list_{field.name}" if field.name in taken else field.name))
        self.schema = pa.schema(fields)

    def table(self, first: int, answers: Answers) -> pa.Table:
        """The rows of a batch of answers, whose first image is row `first`."""
        rows = slice(first, first + len(answers.reasons))
        table = self.predictor.table(self.inputs.ids[rows], answers, self.options)
        if self.inputs.others is not None:
            others = self.inputs.others.iloc[rows].reset_index(drop=True).set_axis(self.schema.names[table.shape[1] :], axis=1)
            table = pd.concat([table, others], axis=1)
        return pa.Table.from_pandas(table, schema=self.schema, preserve_index=False).replace_schema_metadata()


def _type_of(column: str) -> pa.DataType:
    if column == "set":
        return pa.list_(pa.string())
    return pa.float32() if column.endswith("probability") or column == "none_of_these" else pa.string()


class _Parts:
    """The rows that are done: a folder of parquet files, each named after its first row."""

    def __init__(self, folder: Path, schema: pa.Schema):
        self.folder, self.schema = folder, schema

    def begin(self, identity: dict[str, Any], overwrite: bool) -> None:
        """Makes sure that the parts are of this command.

        Raises:
          UserError: if they were begun with something else.
        """
        about = self.folder / "about.json"
        old = _read_json(about)
        unknown = "something unknown" if any(self.folder.glob("*.parquet")) else ""
        difference = unknown if old is None else _difference(old, identity)
        if difference and not overwrite:
            raise UserError(
                f"{self.folder} holds predictions begun with {difference}: choose another --out, or give --overwrite to begin anew."
            )
        if difference or old is None:
            for file in self.folder.glob("*.parquet"):
                file.unlink()
            files.write_json(about, identity)

    def sound_rows(self, total: int) -> int:
        """How many rows, from the first, the parts hold; a damaged one, as after a loss of power, and those after it are removed."""
        done = 0
        for file in sorted(self.folder.glob("*.parquet")):
            try:
                table = pq.read_table(file)
                sound = file == self._path(done) and table.schema.equals(self.schema) and done + len(table) <= total
            except (OSError, pa.ArrowException):
                sound = False
            if not sound:
                for other in self.folder.glob("*.parquet"):
                    if other >= file:
                        other.unlink()
                break
            done += len(table)
        return done

    def write(self, first: int, tables: list[pa.Table]) -> None:
        """Writes the rows from `first` on, in one move."""
        with files.replacing(self._path(first)) as aside:
            pq.write_table(pa.concat_tables(tables), aside)

    def assemble(self, suffix: str) -> tuple[Path, Counter[str]]:
        """Puts the parts together, one in memory at a time.

        Returns:
          The file, beside the parts, and how many images can't be read, by reason.
        """
        aside, reasons = files.part_of(self.folder / f"assembled{suffix}"), Counter[str]()
        pieces = map(pq.read_table, sorted(self.folder.glob("*.parquet")))
        with contextlib.ExitStack() as stack:
            if suffix == ".csv":
                file = stack.enter_context(aside.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
                for number, piece in enumerate(pieces):
                    frame = piece.to_pandas()
                    if "set" in frame:
                        frame["set"] = [None if names is None else json.dumps(list(names), ensure_ascii=False) for names in frame["set"]]
                    frame.to_csv(file, index=False, header=not number, lineterminator="\n")
                    _count(piece, reasons)
            else:
                writer = stack.enter_context(pq.ParquetWriter(aside, self.schema))
                waiting = self.schema.empty_table()
                for piece in pieces:
                    _count(piece, reasons)
                    waiting = pa.concat_tables([waiting, piece]).combine_chunks()
                    while len(waiting) >= _ROW_GROUP:  # groups don't depend on where the parts end
                        writer.write_table(waiting.slice(0, _ROW_GROUP))
                        waiting = waiting.slice(_ROW_GROUP)
                if len(waiting):
                    writer.write_table(waiting)
        return aside, reasons

    def _path(self, first: int) -> Path:
        return self.folder / f"{first:012d}.parquet"


def _predict(rows: _Rows, parts: _Parts, before: int, part_rows: int, console: Console) -> None:
    """Writes the parts from row `before` on; parts begin where batches do, so that a batch is the same whenever it is computed."""
    waiting: list[pa.Table] = []
    first, last_write = before, time.monotonic()  # first: the row of the first waiting table
    stream = rows.predictor.stream(rows.inputs, batch_size=rows.options.batch_size, start=before)
    with progress.bar(console, rate="images") as bar, contextlib.closing(stream):
        task = bar.add_task("Predicting", total=len(rows.inputs), completed=before)
        try:
            for answers in stream:
                waiting.append(rows.table(first + sum(map(len, waiting)), answers))
                bar.advance(task, len(answers.reasons))
                if sum(map(len, waiting)) >= part_rows or time.monotonic() - last_write >= _PART_SECONDS:
                    parts.write(first, waiting)
                    # Emptied before `first` moves on: an interrupt in between finds nothing to write, not these rows in a wrong place.
                    waiting, first = [], first + sum(map(len, waiting))
                    last_write = time.monotonic()
        finally:  # also where the user interrupts: what is done needs not be done again
            if waiting:
                parts.write(first, waiting)


def _count(piece: pa.Table, reasons: Counter[str]) -> None:
    """Adds the reasons of a part's rows, without their details."""
    reasons.update(reason.split(":", 1)[0] for reason in piece["reason"].to_pylist() if reason)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None
