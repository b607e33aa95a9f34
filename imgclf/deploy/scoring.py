"""A classifier on labeled images: its metrics with their interval, and its mistakes with their pictures."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from imgclf import formatting, outputs, progress
from imgclf.data.images import Decoding
from imgclf.data.readers import decoded_as
from imgclf.data.table import Dataset
from imgclf.deploy import explaining
from imgclf.deploy.items import Data, dataset_of
from imgclf.deploy.options import Options
from imgclf.deploy.predictor import Answers, Predictor, joined
from imgclf.errors import UserError
from imgclf.evaluation import metrics, streamed
from imgclf.reporting import mistakes as gallery
from imgclf.reporting import notebook
from imgclf.training.evaluate import is_large

_NEAR, _FEWEST = 0.9, 10  # see `of_known_scenes`


class Evaluation(dict[str, Any]):
    """The metrics of `evaluation.metrics.compute`, and `warnings`: what makes them less than they seem. Printed, it is sentences.

    Example:
      >>> result = classifier.evaluate(test, verbose=False)
      >>> result["n"], result["top1"], [round(bound, 3) for bound in result["top1_ci95"]]
      (15, 1.0, [0.796, 1.0])
      >>> result["confusion"]
      [[4, 0, 0], [0, 5, 0], [0, 0, 6]]
    """

    def __repr__(self) -> str:
        lines = [metrics.headline(self), f"macro F1 {formatting.percent(self['macro_f1'])}, loss {formatting.number(self['loss'])}"]
        return "\n".join([*lines, *(f"Warning: {warning}" for warning in self["warnings"])])

    def _repr_html_(self) -> str:
        """For notebooks."""
        return notebook.evaluation(self, self["warnings"])


def evaluate(predictor: Predictor, data: Data, *, console: Console) -> Evaluation:
    """Scores labeled images; see `Classifier.evaluate`."""
    dataset = need_dataset(data, "evaluate")
    labels = labels_of(predictor, dataset)
    if is_large(len(labels), len(predictor.class_names)):
        parts, unlike, done = list[metrics.Judgement](), list[np.ndarray | None](), 0
        for answers in _stream(predictor, dataset, console):
            parts.append(metrics.judge(answers.probabilities, labels[done : done + len(answers.reasons)]))
            unlike.append(answers.none_of_these)
            done += len(answers.reasons)
        told_apart = [part for part in unlike if part is not None]
        none_of_these = np.concatenate(told_apart) if told_apart else None
        figures = metrics.summary(metrics.Judgement.joined(parts), predictor.class_names, None, streamed.NO_ROC)
    else:
        answers = answers_of(predictor, dataset, console)
        none_of_these = answers.none_of_these
        figures = metrics.compute(answers.probabilities, labels, predictor.class_names)
    result = Evaluation(figures)
    result["warnings"] = warnings_of(predictor, dataset, none_of_these)
    return result


def mistakes(predictor: Predictor, data: Data, path: str | os.PathLike[str] | None, *, overwrite: bool, console: Console) -> pd.DataFrame:
    """The images that are taken for another class; see `Classifier.mistakes`."""
    dataset = need_dataset(data, "mistakes")
    folder = predictor.folder or Path()
    of = gallery.identity(dataset, folder.name or predictor.config.model.name, predictor.sha256)
    page = outputs.free_file(folder / gallery.PAGE, of) if path is None else outputs.check_file(path, of, overwrite=overwrite)
    labels = labels_of(predictor, dataset)
    said = probabilities(predictor, dataset, console)
    predicted, rows = said.argmax(1), np.arange(len(labels))
    names = np.array(predictor.class_names, object)
    table = pd.DataFrame(
        {
            "id": dataset.table["id"].tolist(),
            "true": names[labels],
            "predicted": names[predicted],
            "probability": said[rows, predicted],
            "true_probability": said[rows, labels],
        }
    )
    table = table[predicted != labels].sort_values(["probability", "id"], ascending=[False, True])
    shown = table.index.to_numpy(np.int64)[: gallery.EXPLAINED]
    explained = (
        explaining.cards_of_rows(predictor, dataset, shown, np.stack([predicted, labels], 1)[shown], console) if len(shown) else None
    )
    results = metrics.compute(said, labels, predictor.class_names)
    gallery.write_page(dataset, table, results, page, of, explained=explained, console=console)
    told = f"{formatting.count(len(table), 'mistake')} among {formatting.count(len(labels), 'image')}; open {page} in a browser."
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    return table.reset_index(drop=True)


def predict(predictor: Predictor, dataset: Dataset, options: Options) -> pd.DataFrame:
    """`Classifier.predict` of labeled images: `id` is the table's, and `true`, the image's own class, stands after it."""
    ids = dataset.table["id"].tolist()
    if is_large(len(ids), len(predictor.class_names)):
        parts, done = list[pd.DataFrame](), 0
        for answers in _stream(predictor, dataset, Console(), options.batch_size):
            parts.append(predictor.table(ids[done : done + len(answers.reasons)], answers, options))
            done += len(answers.reasons)
        table = pd.concat(parts, ignore_index=True).drop(columns="reason")
    else:
        answers = answers_of(predictor, dataset, Console(), options.batch_size)
        table = predictor.table(ids, answers, options).drop(columns="reason")
    table.insert(1, "true", dataset.table["class_name"].to_numpy())
    return table


def probabilities(predictor: Predictor, dataset: Dataset, console: Console) -> np.ndarray:
    """float32 [N, C] in the order of the table; see `answers_of`."""
    return answers_of(predictor, dataset, console).probabilities


def answers_of(predictor: Predictor, dataset: Dataset, console: Console, batch_size: int = 64) -> Answers:
    """What is said of labeled images, in the order of the table.

    It is kept as long as the data, so that predict, evaluate and mistakes compute once.

    Raises:
      UserError: if an image has changed since it was loaded.
    """
    known = predictor.scored.get(dataset.reader)
    if known is not None:
        return known
    found = joined(list(_stream(predictor, dataset, console, batch_size)))
    found.probabilities.setflags(write=False)
    predictor.scored[dataset.reader] = found
    return found


def _stream(predictor: Predictor, dataset: Dataset, console: Console, batch_size: int = 64) -> Iterator[Answers]:
    """What is said of labeled images, in the order of the table, a batch at a time; raises as `answers_of` does."""
    done = 0
    reader = decoded_as(dataset.reader, Decoding.of(predictor.config.data))  # as the run decodes all else
    with progress.bar(console) as bar, contextlib.closing(predictor.stream(reader, batch_size=batch_size)) as stream:
        task = bar.add_task("classifying", total=len(dataset.reader))
        for answers in stream:
            for row, reason in enumerate(answers.reasons, start=done):
                if reason:
                    raise UserError(f"{dataset.table['id'].iloc[row]} can't be classified ({reason}): load the images again.")
            done += len(answers.reasons)
            bar.advance(task, len(answers.reasons))
            yield answers


def need_dataset(data: Any, name: str) -> Dataset:
    """The data set that is, or is inside, `data`.

    Raises:
      UserError: if there is none; `name` is that of the function that was called.
    """
    dataset = dataset_of(data)
    if dataset is None:
        raise UserError(f"{name} needs labeled images, as imgclf.load_images gives them, not {type(data).__name__}.")
    return dataset


def labels_of(predictor: Predictor, dataset: Dataset) -> np.ndarray:
    """int64 [N] in the classifier's order of classes, which may differ from the data's."""
    known = {name: label for label, name in enumerate(predictor.class_names)}
    names = dataset.table["class_name"]
    unseen = sorted(set(names) - known.keys())
    if unseen:
        shown = ", ".join(map(repr, unseen[:5])) + (f" and {len(unseen) - 5} more" if len(unseen) > 5 else "")
        classes = ", ".join(map(repr, predictor.class_names[:5])) + (", …" if len(predictor.class_names) > 5 else "")
        raise UserError(
            f"The classifier has not seen {'class' if len(unseen) == 1 else 'classes'} {shown} in training (it knows {classes}): "
            "train with them, or leave them out by data.filter([…])."
        )
    return names.map(known).to_numpy(np.int64)


def warnings_of(predictor: Predictor, dataset: Dataset, none_of_these: np.ndarray | None = None) -> list[str]:
    """What the run's own table, and the images' p-values where these are given, say of them: known images tell nothing about new ones."""
    found, told = _seen(predictor, dataset), []
    of = formatting.count(len(dataset.table), "image")
    for split, use in (("train", "were trained on"), ("val", "helped to choose the model")):
        if n := int((found == split).sum()):
            told.append(f"{n:,} of {of} {use}: the accuracy on new images is lower.")
    if none_of_these is not None and (warning := of_known_scenes(none_of_these[(found == "").to_numpy()])):
        told.append(warning)
    return told


def of_known_scenes(none_of_these: np.ndarray) -> str:
    """A warning where most images are shots of scenes that the classifier was trained on, or seem so; else "".

    An image of a new scene is as far from the training images as these are from those of other groups and scenes, so that its p-value is
    above 0.9 in one case of ten, and half of ten images have such p-values in two cases of a thousand. Scenes are told so only where the
    training images' own were found, and of at least as many shots as `open_set.NEIGHBORS`.

    Args:
      none_of_these: float32 [n], p-values of images that the classifier was not trained on, see `evaluation.open_set`.
    """
    near, of = int((none_of_these > _NEAR).sum()), len(none_of_these)
    if of < _FEWEST or near < of / 2:
        return ""
    return (
        f"{near:,} of {formatting.count(of, 'image')} are nearer to the training images than nine tenths of these are to other scenes: "
        "shots of scenes that the classifier knows, it seems; the accuracy on new scenes is lower."
    )


def _seen(predictor: Predictor, dataset: Dataset) -> pd.Series:
    """The split in which the classifier's run had each image, by its contents; "" for images that it didn't have."""
    path = predictor.folder / "dataset.parquet" if predictor.folder else None
    if path is None or not path.exists():
        return pd.Series("", dataset.table.index)
    seen = pd.read_parquet(path, columns=["sha256", "split"])
    return dataset.table["sha256"].map(dict(zip(seen["sha256"], seen["split"], strict=True))).fillna("")
