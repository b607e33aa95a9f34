"""Predictions of any number of image files: streamed, and continued where they were interrupted.

Rows are kept in OUT.part/ as they are done, in parquet files named after their first row; at the end they are put together and renamed to
OUT, beside which OUT.json says what it was made of. The same command therefore continues, and its result does not depend on where
it was stopped.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from imgclf import formatting
from imgclf.deploy.inputs import Inputs
from imgclf.deploy.predictor import Answers, Predictor
from imgclf.errors import UserError
from imgclf.files import write_json

SUFFIXES = (".csv", ".parquet")
_PART_SECONDS, _PART_ROWS = 15.0, 16_384  # a part is written when either is reached
_ROW_GROUP = 65_536  # of the parquet file


@dataclasses.dataclass(frozen=True)
class Options:
    """What the rows say; the fields are the command's options."""

    top_k: int = 5
    batch: int = 64
    threshold: float | None = None
    conformal: bool = False


@dataclasses.dataclass(frozen=True)
class Summary:
    """What was done. `reasons` counts the images that can't be read by reason."""

    images: int
    predicted: int
    before: int  # predicted by an earlier start
    seconds: float
    reasons: Counter


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
    """Writes the predictions of all inputs, in their order, to `out` (.csv or .parquet).

    Columns: those of `Predictor.table`, then the list's other columns (with `list_` before a name that is taken).

    Args:
      overwrite: whether to replace an `out` (or what is begun of it) that was made of something else.
      part_rows: rows that are written at a time, at most.

    Raises:
      UserError: if `out` exists and was made of something else, another process writes it, or the disk is full.
    """
    check_out(out)
    identity = _identity(predictor, inputs, options)
    parts, about = out.with_name(out.name + ".part"), out.with_name(out.name + ".json")
    if out.exists() and not overwrite:
        old = _check_same(out, about, identity)
        return Summary(len(inputs), old["predicted"], len(inputs), 0.0, Counter(old["reasons"]))
    try:
        with _claim(parts):
            _begin(parts, identity, overwrite)
            schema = _schema(predictor, inputs, options)
            before = _sound_rows(parts, schema, len(inputs))
            start = time.perf_counter()
            _predict(predictor, inputs, parts, schema, before, options, console, part_rows)
            seconds = time.perf_counter() - start
            aside, reasons = _assemble(parts, schema, out.suffix.lower())
            identity |= {"predicted": len(inputs) - sum(reasons.values()), "reasons": dict(reasons), "sha256": _sha256(aside)}
            write_json(about, identity)
            aside.replace(out)
            shutil.rmtree(parts)
    except OSError as error:
        raise UserError(
            f"{error.filename or out} can't be written ({error.strerror or error}): mend that, and give the same command to continue."
        ) from error
    return Summary(len(inputs), identity["predicted"], before, seconds, reasons)


def describe(summary: Summary, ignored: Counter, out: Path) -> str:
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


def _identity(predictor: Predictor, inputs: Inputs, options: Options) -> dict[str, Any]:
    """What the predictions are made of, in JSON's types; OUT belongs to it where the three parts are equal."""
    return {
        "model": predictor.sha256,
        "images": {"count": len(inputs), "sha256": inputs.sha256},
        "options": dataclasses.asdict(options) | {"reduced_decode": predictor.reduced_decode},
    }


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    if old.get("model") != new["model"]:
        return "another run, or by this one before it changed"
    if old.get("images") != new["images"]:
        return f"other images ({old.get('images', {}).get('count', 0):,}, now {new['images']['count']:,}, or with other contents)"
    before, now = old.get("options", {}), new["options"]
    changed = [f"--{name.replace('_', '-')}={before.get(name)}" for name in now if before.get(name) != now[name]]
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


@contextlib.contextmanager
def _claim(parts: Path) -> Iterator[None]:
    """Makes the folder of parts, and keeps a second process out of it."""
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is writing {parts}: wait for it, or choose another --out.") from None
        yield


def _begin(parts: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """Makes sure that the parts are of this command."""
    about = parts / "about.json"
    old = _read_json(about)
    difference = _difference(old, identity) if old is not None else "something unknown" if any(parts.glob("*.parquet")) else ""
    if difference and not overwrite:
        raise UserError(f"{parts} holds predictions begun with {difference}: choose another --out, or give --overwrite to begin anew.")
    if difference or old is None:
        for file in parts.glob("*.parquet"):
            file.unlink()
        write_json(about, identity)


def _schema(predictor: Predictor, inputs: Inputs, options: Options) -> pa.Schema:
    """The types of all columns, whatever the first images are."""
    empty = predictor.table([], Answers(np.zeros((0, len(predictor.class_names)), np.float32), []), **_table_options(options))
    fields = [
        pa.field(name, pa.list_(pa.string()) if name == "set" else pa.float32() if name.endswith("probability") else pa.string())
        for name in empty
    ]
    if inputs.others is not None:
        taken = set(empty)
        for field in pa.Schema.from_pandas(inputs.others, preserve_index=False):
            fields.append(field.with_name(f"list_{field.name}" if field.name in taken else field.name))
    return pa.schema(fields)


def _table_options(options: Options) -> dict[str, Any]:
    return {"top_k": options.top_k, "threshold": options.threshold, "conformal": options.conformal}


def _part(parts: Path, first: int) -> Path:
    return parts / f"{first:012d}.parquet"


def _sound_rows(parts: Path, schema: pa.Schema, total: int) -> int:
    """How many rows, from the first, the parts hold; a damaged one and those after it are removed."""
    done = 0
    for file in sorted(parts.glob("*.parquet")):
        try:
            table = pq.read_table(file)
            sound = file == _part(parts, done) and table.schema.equals(schema) and done + len(table) <= total
        except (OSError, pa.ArrowException):
            sound = False
        if not sound:
            for other in parts.glob("*.parquet"):
                if other >= file:
                    other.unlink()
            break
        done += len(table)
    return done


def _predict(
    predictor: Predictor,
    inputs: Inputs,
    parts: Path,
    schema: pa.Schema,
    before: int,
    options: Options,
    console: Console,
    part_rows: int,
) -> None:
    """Writes the parts from row `before` on; parts begin where batches do, so that a batch is the same whenever it is computed."""
    tables: list[pa.Table] = []
    first = done = before
    last_write = time.monotonic()

    def write() -> None:
        nonlocal first, last_write
        if tables:
            aside = parts / "part"
            pq.write_table(pa.concat_tables(tables), aside)
            aside.replace(_part(parts, first))
        tables.clear()
        first, last_write = done, time.monotonic()

    columns = (TextColumn("Predicting"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(inputs), completed=before)
        stream = predictor.stream(inputs, batch_size=options.batch, start=before)
        try:
            with contextlib.closing(stream):
                for answers in stream:
                    rows = slice(done, done + len(answers.reasons))
                    tables.append(_rows(predictor, inputs, rows, answers, schema, options))
                    done = rows.stop
                    bar.advance(task, len(answers.reasons))
                    if done - first >= part_rows or time.monotonic() - last_write >= _PART_SECONDS:
                        write()
        except KeyboardInterrupt:
            write()
            raise
        write()


def _rows(predictor: Predictor, inputs: Inputs, rows: slice, answers: Answers, schema: pa.Schema, options: Options) -> pa.Table:
    table = predictor.table(inputs.ids[rows], answers, **_table_options(options))
    if inputs.others is not None:
        others = inputs.others.iloc[rows].reset_index(drop=True).set_axis(schema.names[table.shape[1] :], axis=1)
        table = pd.concat([table, others], axis=1)
    return pa.Table.from_pandas(table, schema=schema, preserve_index=False).replace_schema_metadata()


def _assemble(parts: Path, schema: pa.Schema, suffix: str) -> tuple[Path, Counter]:
    """Puts the parts together, one at a time, in a file beside them."""
    aside, reasons = parts / f"assembled{suffix}.part", Counter()
    pieces = map(pq.read_table, sorted(parts.glob("*.parquet")))
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
            writer = stack.enter_context(pq.ParquetWriter(aside, schema))
            waiting: list[pa.Table] = []
            for piece in pieces:
                _count(piece, reasons)
                waiting = [pa.concat_tables([*waiting, piece]).combine_chunks()]
                while len(waiting[0]) >= _ROW_GROUP:  # groups don't depend on where the parts end
                    writer.write_table(waiting[0].slice(0, _ROW_GROUP))
                    waiting = [waiting[0].slice(_ROW_GROUP)]
            if waiting and len(waiting[0]):
                writer.write_table(waiting[0])
    return aside, reasons


def _count(piece: pa.Table, reasons: Counter) -> None:
    for reason in piece["reason"].to_pylist():
        if reason:
            reasons[reason.split(":", 1)[0]] += 1


class _Rate(ProgressColumn):
    """Images per second of this start."""

    def render(self, task: Task) -> Text:
        return Text(f"{formatting.number(task.speed)}/s" if task.speed else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None
