"""`imgclf.create` within a time limit: a probe first, then what may be better, each kept only if images that neither has seen say so.

Every candidate is an ordinary run in `candidates/` of the run's folder. The best so far is copied into the run's folder itself, which is
therefore a finished run, and the same as any other, from the first candidate on; its `config.json` says all that was decided, and repeats
it without a clock. `leaderboard.json` is written after every candidate, so that the same call continues after a kill.
"""

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, formatting
from imgclf.config import Config
from imgclf.data.splits import groups_of, subset
from imgclf.data.table import Dataset
from imgclf.deploy import scoring
from imgclf.deploy.classifier import load
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation import calibration, metrics
from imgclf.evaluation.intervals import clustered
from imgclf.methods.probe import OUT_OF_FOLD
from imgclf.probes import features, ties
from imgclf.reporting import leaderboard, scenes
from imgclf.training.trained_model import OutOfFold
from imgclf.workflows import run_folder, train
from imgclf.workflows.candidates import COMPILING_OVER_FEATURES, FEWEST_EPOCHS, STEP_OVER_FEATURES, Candidate, Speed, candidates
from imgclf.workflows.console import bars_only
from imgclf.workflows.time_limit import TimeLimit

FOLDER = "candidates"
_SPEED_IMAGES = 16  # that are predicted to measure the speed


@dataclasses.dataclass
class Row:
    """What is known of a candidate; a line of leaderboard.json. None where it was not run."""

    name: str
    about: str
    fields: dict[str, Any]  # that its config sets beside the first's
    kept: bool = False
    top1: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None  # images that it was judged on
    judged_on: str = ""  # folds | val
    loss: float | None = None
    seconds: float = 0.0
    train_seconds: float = 0.0  # of them; mostly of features, in a probe
    parameters: int | None = None
    images_per_second: float | None = None
    decision: str = ""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be classified, and how: what `create` has settled.

    Attributes:
      config: of the first candidate.
      dataset: what is trained on.
      fixed: fields that the user has set.
      recipe: the fields of fine-tuning.
    """

    config: Config
    dataset: Dataset
    fixed: Mapping[str, Any]
    recipe: Mapping[str, Any]


def search(asked: Asked, folder: Path, seconds: float, console: Console) -> None:
    """Tries what there is time for, and leaves the best as the run in `folder`.

    Args:
      asked: what is to be classified.
      folder: the run's; a search that was interrupted there continues.
      seconds: the time limit; what earlier starts have used is part of it.
      console: where to tell what happens.

    Raises:
      UserError: for what the user can mend, such as a folder that holds another run.
      training.stopping.Interrupted: if training was asked to stop; its state is saved.
    """
    with run_folder.claim(folder):
        before = _earlier(asked, folder)
        _Search(asked, folder, TimeLimit(seconds, before["seconds"]), console, [Row(**row) for row in before["rows"]]).run()


def _earlier(asked: Asked, folder: Path) -> dict[str, Any]:
    """What an earlier start has written of candidates that were run."""
    saved = folder / leaderboard.FILE
    if not saved.exists():
        if (folder / run_folder.CONFIG).exists():
            raise UserError(f"{folder} holds a run that had no time limit: choose another workdir, or leave time_limit out to continue it.")
        return {"seconds": 0.0, "rows": []}
    found: dict[str, Any] = json.loads(saved.read_text(encoding="utf-8"))
    changes = config_lib.changes(config_lib.from_json(json.dumps(found["config"])), asked.config)
    if changes:
        told = "; ".join(f"config.{name} was {old!r}, now {new!r}" for name, (old, new) in changes.items())
        raise UserError(
            f"{folder} holds a run that began with another config: {told}. Choose another workdir, or give the old values back."
        )
    found["rows"] = [row for row in found["rows"] if row["n"] is not None or row["kept"]]
    return found


class _Search:
    def __init__(self, asked: Asked, folder: Path, limit: TimeLimit, console: Console, rows: list[Row]):
        self._asked, self._folder, self._limit, self._console, self._rows = asked, folder, limit, console, rows
        self._judged: dict[str, pd.DataFrame] = {}
        self._compiling = 1.0  # seconds that it takes to compile a pass through the network

    def run(self) -> None:
        """See `search`."""
        done = {row.name for row in self._rows}
        training = self._asked.config.train.method != "probe"
        first = Candidate("training" if training else "probe", "what is made without a time limit", {}, trains=training)
        if first.name not in done:
            self._first(first)
        for candidate in candidates(self._asked.config, self._asked.fixed, self._asked.recipe):
            if candidate.name not in done:
                self._next(candidate)
        self._finish()

    @property
    def _kept(self) -> Row:
        return next(row for row in self._rows if row.kept)

    def _first(self, candidate: Candidate) -> None:
        row = self._tried(candidate, {}, self._limit if candidate.trains else None)
        row.kept, row.decision = True, "kept"
        self._tell(self._told(row))
        if not self._limit.left and not candidate.trains:
            self._tell(f"The limit of {self._limit} was too short for anything else.")
        self._rows.append(row)
        self._save()
        self._publish(row)

    def _next(self, candidate: Candidate) -> None:
        """Tries a candidate if there is time, and keeps it if it is better."""
        row = Row(candidate.name, candidate.about, self._kept.fields | dict(candidate.fields))
        if self._kept.n is None:
            row.decision = "not tried: no image can be held out, so that nothing could be told apart"
        elif candidate.trains:
            row = self._with_time(candidate, row)
        else:
            shown = self._kept.fields.get("eval.views", self._asked.config.eval.views)
            expected = self._speed.seconds(candidate, self._images, shown)
            if expected > 0.9 * self._limit.left:
                row.decision = f"not tried: about {formatting.duration(expected)}, and {formatting.duration(self._limit.left)} left"
            else:
                row = self._attempt(candidate, row.fields, None)
        self._rows.append(row)
        if row.n is not None and self._is_better(row):
            before = self._kept
            before.kept, before.decision = False, f"kept until {row.name} was better"
            row.kept = True
            self._publish(row)
        self._save()
        self._tell(self._told(row))

    def _with_time(self, candidate: Candidate, row: Row) -> Row:
        """Trains for as many epochs as there is time for."""
        if (self._folder / FOLDER / candidate.name / run_folder.CONFIG).exists():
            return self._attempt(candidate, row.fields, self._limit)  # an earlier start was killed here; it has decided for how long
        epochs = self._speed.epochs(self._images, 0.9 * self._limit.left)
        if epochs < FEWEST_EPOCHS:
            row.decision = f"not tried: {formatting.duration(self._limit.left)} left, too little for {FEWEST_EPOCHS} epochs"
            return row
        fields = row.fields | {"train.duration": f"{epochs} epochs"}
        return self._attempt(candidate, fields, self._limit)

    def _attempt(self, candidate: Candidate, fields: dict[str, Any], limit: TimeLimit | None) -> Row:
        """Runs a candidate; what it can't do with these images or this model is its decision."""
        try:
            # what a training has cost is not thrown away for the features of its evaluation
            with features.within(math.inf if candidate.trains else self._limit.left - self._speed.run):
                return self._tried(candidate, fields, limit)
        except features.OutOfTime as error:
            return Row(candidate.name, candidate.about, fields, decision=f"given up: {error}")
        except UserError as error:
            return Row(candidate.name, candidate.about, fields, decision=f"not possible: {error}")

    def _tried(self, candidate: Candidate, fields: dict[str, Any], limit: TimeLimit | None) -> Row:
        if candidate.trains:  # minutes without a word; the others are told of when they are done
            self._tell(f"{candidate.name}: {candidate.about}, {formatting.duration(self._limit.left)} left.")
        start = time.monotonic()
        folder = self._folder / FOLDER / candidate.name
        config = self._asked.config.copy_and_resolve_references()
        if (folder / run_folder.CONFIG).exists():  # an earlier start has decided for how long
            saved = config_lib.from_json((folder / run_folder.CONFIG).read_text(encoding="utf-8"))
            fields = fields | {name: saved.train[name.removeprefix("train.")] for name in ("train.duration", "train.stop_after")}
        config_lib.override(config, fields)
        within = None if limit is None else TimeLimit(max(1.0, limit.left - self._after_training))
        results = train.train(config, folder, console=bars_only(self._console), dataset=self._dataset, time_limit=within)
        ended = config_lib.from_json((folder / run_folder.CONFIG).read_text(encoding="utf-8")).train.stop_after
        classifier = load(folder)
        row = Row(candidate.name, candidate.about, fields | ({"train.stop_after": ended} if ended else {}))
        row.parameters, row.train_seconds = results["params_total"], results["train_seconds"]
        row.images_per_second, compiling = _speed_of(classifier)
        self._compiling = max(self._compiling, compiling)
        judged = self._judge(folder, classifier)
        if len(judged):
            row.n, row.judged_on, row.top1, row.loss = len(judged), judged.attrs["on"], judged["right"].mean(), judged["loss"].mean()
            row.low, row.high = clustered(judged["right"].to_numpy(), judged["group"].to_numpy())
        row.seconds = time.monotonic() - start
        return row

    @property
    def _dataset(self) -> Dataset:
        """What is trained on; with the scenes that the first candidate has found, so that all have the same folds."""
        dataset, first = self._asked.dataset, self._folder / FOLDER / (self._rows[0].name if self._rows else "") / "dataset.parquet"
        if "scene" in dataset.table or not first.is_file() or "scene" not in (found := pd.read_parquet(first)):
            return dataset
        names = dataset.table["id"].map(found.set_index("id")["scene"]).fillna("")  # copies that the audit has dropped have none
        return dataclasses.replace(dataset, table=dataset.table.assign(scene=names.astype("str")))

    def _judge(self, folder: Path, classifier: Predictor) -> pd.DataFrame:
        """Whether a candidate is right on each image that it was not trained on, and its loss there; a row per image, by id."""
        table = pd.read_parquet(folder / "dataset.parquet")
        alone = classifier.config.train.method == "probe"  # else its folds say nothing of what the training has made of it
        held = OutOfFold.load(folder / OUT_OF_FOLD) if alone else None
        if held is not None:
            rows, on = held.rows, "folds"
            probabilities = calibration.probabilities(
                held.logits + np.array(classifier.logit_offset or 0, np.float32), classifier.temperature
            )
        else:
            rows, on = np.flatnonzero((table["split"] == "val").to_numpy()), "val"
            own = pd.Series(range(len(self._asked.dataset.table)), index=self._asked.dataset.table["id"])
            images = subset(self._asked.dataset, own[table["id"].iloc[rows]].to_numpy(np.int64))
            probabilities = (
                scoring.probabilities(classifier, images, self._console) if len(rows) else np.zeros((0, len(classifier.class_names)))
            )
        labels = table["label"].to_numpy()[rows]
        judged = pd.DataFrame({"right": probabilities.argmax(1) == labels, "loss": metrics.losses(probabilities, labels)})
        judged.index = pd.Index(table["id"].to_numpy()[rows])
        judged["group"] = groups_of(table)[rows]
        judged.attrs["on"] = on
        self._judged[folder.name] = judged
        return judged

    def _is_better(self, row: Row) -> bool:
        """Compares a candidate with what is kept, on the images that both were judged on, and writes down the decision."""
        before = self._judged.get(self._kept.name)
        if before is None:  # after a restart
            folder = self._folder / FOLDER / self._kept.name
            before = self._judge(folder, load(folder))
        now = self._judged[row.name]
        common = now.index.intersection(before.index)
        now, before = now.loc[common], before.loc[common]
        lower = (before["loss"] - now["loss"]).to_numpy()
        error = ties.standard_error(lower, None, pd.factorize(now["group"])[0])
        more = int(now["right"].sum()) - int(before["right"].sum())
        told = f"{formatting.signed(more)} of {len(common):,} right, loss {formatting.signed(-lower.mean(), 3)} ± {error:.3f}"
        dearer = row.fields.get("train.method") == "lp_ft" or row.fields.get("eval.views") != self._kept.fields.get("eval.views")
        better = bool(lower.mean() > error and more >= int(dearer))  # what costs more has to get more images right
        worse = "no more right, and dearer" if dearer and lower.mean() > error else "within noise"
        row.decision = f"{'kept' if better else 'not better' if lower.mean() <= 0 else worse} ({told})"
        return better

    @property
    def _images(self) -> int:
        return len(self._asked.dataset.table)

    @property
    def _after_training(self) -> float:
        """Seconds from the end of a training to its judgement, as far as what has run tells: compiling its evaluation, scores, a report."""
        if not any(row.n is not None for row in self._rows):
            return 0.0
        speed = self._speed
        return speed.run + speed.compiling / 2 + self._images * speed.image

    @property
    def _speed(self) -> Speed:
        """From what has run so far."""
        image = 1 / (next(row.images_per_second for row in self._rows if row.images_per_second) or 1.0)
        probes = [
            row.seconds - 0.8 * row.train_seconds for row in self._rows if row.n is not None and row.fields.get("train.method") != "lp_ft"
        ]
        trained = [row for row in self._rows if row.n is not None and row.fields.get("train.method") == "lp_ft"]
        over = STEP_OVER_FEATURES
        if trained and (rate := _trained_images_per_second(self._folder / FOLDER / trained[-1].name)):
            over = 1 / rate / image
        return Speed(image, min(probes), COMPILING_OVER_FEATURES * self._compiling, over)

    def _publish(self, row: Row) -> None:
        """Makes the run's folder a copy of a candidate; results.json, by which a run is known to be finished, comes last.

        The page of scenes stays the first candidate's, which has found them and knows why: the others were given them.
        """
        source = self._folder / FOLDER / row.name
        for entry in sorted(source.iterdir(), key=lambda entry: entry.name == "results.json"):
            if entry.name == ".lock" or (entry.name == scenes.PAGE and (self._folder / scenes.PAGE).exists()):
                continue
            if entry.is_dir():
                with files.replacing_folder(self._folder / entry.name) as aside:
                    shutil.copytree(entry, aside, dirs_exist_ok=True)
            else:
                with files.replacing(self._folder / entry.name) as aside:
                    shutil.copyfile(entry, aside)
        if not (source / OUT_OF_FOLD).exists():
            (self._folder / OUT_OF_FOLD).unlink(missing_ok=True)

    def _finish(self) -> None:
        """Says in the report what was tried, and drops the models that were not kept."""
        from imgclf.reporting import report  # slow to import

        self._save()
        results = run_folder.results(self._folder)
        told = f"Chosen among {formatting.count(sum(row.n is not None for row in self._rows), 'candidate')} in {self._limit}"
        if not any(note.startswith("Chosen among") for note in results["notes"]):
            own = results["split"] in ("cross_validation", "val")
            where = "on the images of this score" if own else "on training images that were held out, not on those of this score"
            results["notes"].append(f"{told}, {where}; see the leaderboard.")
        files.write_json(self._folder / "results.json", results)
        report.write_report(self._folder)
        for row in self._rows:
            if not row.kept:
                shutil.rmtree(self._folder / FOLDER / row.name / "checkpoints", ignore_errors=True)
        kept = self._kept
        score = f": {formatting.percent(kept.top1)} ({formatting.interval((kept.low or 0.0, kept.high or 1.0))})" if kept.n else ""
        self._tell(f"Kept {kept.name}{score}, after {formatting.duration(self._limit.used)} of {self._limit}.")

    @staticmethod
    def _told(row: Row) -> str:
        """A line about a candidate."""
        if row.n is None:
            return f"{row.name}: {row.decision}."
        score = f"{formatting.percent(row.top1)} ({formatting.interval((row.low or 0.0, row.high or 1.0))})"
        return f"{row.name}: {score} of {row.n:,}, {formatting.duration(row.seconds)}: {row.decision}."

    def _save(self) -> None:
        fields = {"time_limit": self._limit.seconds, "seconds": round(self._limit.used, 1), "config": self._asked.config.to_dict()}
        files.write_json(self._folder / leaderboard.FILE, fields | {"rows": [dataclasses.asdict(row) for row in self._rows]})

    def _tell(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _speed_of(predictor: Predictor) -> tuple[float, float]:
    """How many images of the input's size are predicted in a second, and how many seconds it took to compile that."""
    height, width = predictor.config.data.image_size
    images = [np.zeros((height, width, 3), np.uint8)] * _SPEED_IMAGES
    times = [time.perf_counter()]
    for _ in range(2):
        predictor.predict_probabilities(images, batch_size=_SPEED_IMAGES)
        times.append(time.perf_counter())
    first, second = np.diff(times)
    return _SPEED_IMAGES / float(second), max(0.0, float(first - second))


def _trained_images_per_second(folder: Path) -> float | None:
    """The speed of a training, as its log says."""
    lines = list(files.read_json_lines(folder / "metrics.jsonl"))
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return float(np.median(rates)) if rates else None
