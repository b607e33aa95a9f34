"""A trained classifier in use: what `imgclf.load` and `imgclf.create` return."""

import json
import os
from pathlib import Path

import pandas as pd
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files
from imgclf.deploy import explaining, exporting, hub, mapping, saving, scoring
from imgclf.deploy.items import Data, dataset_of, is_many, take
from imgclf.deploy.options import OnError, Options, check_on_error
from imgclf.deploy.predictor import Predictor
from imgclf.errors import UserError
from imgclf.evaluation.conformal import Conformal
from imgclf.evaluation.open_set import OpenSet
from imgclf.explanation.choices import Method, check_method
from imgclf.exports.choices import Options as ExportOptions
from imgclf.exports.folder import EXPORT_JSON, Export
from imgclf.remote import copies, places
from imgclf.reporting import leaderboard, notebook
from imgclf.runtime import compilation_cache
from imgclf.training.checkpoint import load_model


class Classifier(Predictor):
    """A trained classifier: predicts images, is scored on labeled ones, and saved to a folder of its own.

    Example:
      >>> classifier.class_names, classifier.folder.name
      (('blue', 'green', 'red'), 'photos')
      >>> classifier
      mobilenet_v2_tiny for 3 classes (blue, green, red), from runs/photos
    """

    def predict(  # noqa: PLR0913  (options by name)
        self,
        sources: object,
        *,
        top_k: int = 5,
        batch_size: int = 64,
        threshold: float | None = None,
        conformal: bool = False,
        on_error: OnError | None = None,
        column: str = "",
        root: str | os.PathLike[str] = "",
    ) -> pd.DataFrame:
        """Classifies images. For many thousands of files there is the command `imgclf predict`, which can be interrupted.

            classifier.predict("cat.jpg")
            classifier.predict(["a.jpg", "b.png"], top_k=2)
            classifier.predict("photos", threshold=0.8)  # a folder; what can't be read has a row that says why
            classifier.predict(frame, column="file", root="photos")  # a DataFrame
            classifier.predict(camera.frames())  # a generator of uint8 arrays [h, w, 3]
            classifier.predict(test)  # labeled images, from imgclf.load_images

        Args:
          sources: an image, or any number of them. An image is a path, the bytes of an image file or such a file that is open, a Pillow
            image, or an array uint8 [h, w], [h, w, 1], [h, w, 3] or [h, w, 4] (RGB; with transparency, over white). Several stand in a list
            or any other sequence, a Series, an array [n, h, w, c], a generator; they are counted by position, whatever their index. Or a
            DataFrame with a column of paths; a folder, with all images in it; a list file (.csv, .tsv, .parquet, .txt); or labeled images.
          top_k: how many classes to list per image.
          batch_size: images per forward pass.
          threshold: probability, 0 to 1: adds the column `answer`, which is "unknown" where the predicted class is less probable.
          conformal: whether to add the column `set`, the classes that the run's conformal rule (Sadinle et al., 2019) admits.
          on_error: what happens at an image that can't be read: "raise" an error, or tell the reason in its "row". None = "row" for folders
            and list files, else "raise".
          column: of paths, in a DataFrame or list file; "" = that of the run's own table, `path`, or `id`.
          root: the folder that relative paths are in; "" = the current one, for a list file its own.

        Returns:
          A table with a row per image, in their order: `id`, `predicted`, `probability` (float64, 0 to 1), `top1`, `top1_probability`, …,
          see `Predictor.table`. `id` is the path as it was given, the DataFrame's column `id`, or the position; of labeled images it is the
          image's id, and its class, `true`, follows. With on_error="row" there is a column `reason`, "" where an image could be read.

        Raises:
          UserError: for what holds no images; for an image that can't be read, which is named, where on_error is "raise"; for options out
            of their range.

        Example:
          >>> table = classifier.predict(["photos/red/00.png", "photos/blue/00.png"], top_k=2)
          >>> table[["id", "predicted"]].values.tolist()
          [['photos/red/00.png', 'red'], ['photos/blue/00.png', 'blue']]
          >>> table.columns.tolist()
          ['id', 'predicted', 'probability', 'top1', 'top1_probability', 'top2', 'top2_probability', 'none_of_these']
        """
        options = Options(top_k, batch_size, threshold, conformal)
        if options.conformal:
            self.need_conformal()
        if (dataset := dataset_of(sources)) is not None:
            return scoring.predict(self, dataset, options)
        taken = take(sources, self.config.data, column=column, root=root)
        policy = check_on_error(on_error) if on_error is not None else "row" if is_many(taken) else "raise"
        answers = self.answers(taken, options, policy)
        table = self.table(taken.ids, answers, options)
        return table if policy == "row" else table.drop(columns="reason")

    def evaluate(self, data: Data, *, verbose: bool = True) -> scoring.Evaluation:
        """Scores labeled images, such as `test` of `train, test = data.split(0.8)`.

        Args:
          data: from `imgclf.load_images`. Classes are matched by name.
          verbose: shows the progress.

        Returns:
          A dict: `top1`, `top1_ci95`, `per_class`, `confusion`, …, see `evaluation.metrics.compute`; and `warnings`, such as that images
          were trained on. Printed, it is the accuracy with its interval (Wilson, 1927), and the warnings.

        Raises:
          UserError: for a class that the classifier has not seen in training.

        Example:
          >>> result = classifier.evaluate(test, verbose=False)
          >>> result
          100 % (95 % interval 79.6–100 %, 15 of 15 images right)
          macro F1 100 %, loss ...
          >>> result["top1"], result["per_class"]["red"]["support"], result["warnings"]
          (1.0, 6, [])
          >>> classifier.evaluate(train, verbose=False)["warnings"]
          ['60 of 60 images were trained on...']
        """
        return scoring.evaluate(self, data, console=Console(quiet=not verbose))

    def mistakes(
        self,
        data: Data,
        path: str | os.PathLike[str] | None = None,
        *,
        inline: bool = False,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> pd.DataFrame:
        """Finds the images that are taken for another class, and writes a page with their pictures.

        Args:
          data: from `imgclf.load_images`.
          path: of the page, a self-contained HTML file; None = mistakes.html in the run's folder, or mistakes-2.html, … where that is of
            other images.
          inline: whether to show the page below a notebook's cell; without a `path` it is then written to a temporary folder.
          overwrite: whether to replace what stands at `path`, if it is not an older page of this model and these images (that is always
            replaced).
          verbose: tells how many there are, and where the page is.

        Returns:
          A row per mistake, the most confident first: `id`, `true`, `predicted`, `probability`, `true_probability`.

        Raises:
          UserError: as `evaluate` does; if something else stands at `path`.

        Example:
          >>> classifier.mistakes(test, "mistakes.html", verbose=False).columns.tolist()
          ['id', 'true', 'predicted', 'probability', 'true_probability']
        """
        if path is None and (inline or (self.folder is None and notebook.is_running())):
            path = files.temporary_folder() / "mistakes.html"
        table = scoring.mistakes(self, data, path, overwrite=overwrite, console=Console(quiet=not verbose))
        if inline:
            notebook.show(Path(path or ""))
        return table

    def explain(  # noqa: PLR0913  (options by name)
        self,
        sources: object,
        path: str | os.PathLike[str] | None = None,
        *,
        class_name: str = "",
        method: Method = "hirescam",
        neighbours: int | None = None,
        top_k: int = 5,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> pd.DataFrame:
        """Shows which places of images speak for the answer, and which training images are nearest, on a page with their pictures.

            classifier.explain("cat.jpg")
            classifier.explain("photos", class_name="lynx", method="occlusion")

        Args:
          sources: see `predict`; 500 images at most.
          path: of the page, a self-contained HTML file; None = explain.html in the run's folder, or explain-2.html, … where that is of
            other images.
          class_name: a class that is explained beside the predicted one.
          method: "hirescam" (HiResCAM of Draelos and Carin, 2020; about a forward pass) or "occlusion" (Zeiler and Fergus, 2014; some 170
            of them); see `imgclf.explanation`.
          neighbours: how many training images are shown; None = 3, where the run's images are still there. Their features come from the
            cache, or are computed and kept there.
          top_k: how many classes to list per image.
          overwrite: whether to replace what stands at `path`, if it is not an older page of this model and these images.
          verbose: shows the progress, and tells where the page is.

        Returns:
          A row per image: those of `predict`; `class` that is explained (`class_name`, else the predicted one); `map`, float32 [h, w], the
          contributions to its logit; `neighbours`, a list of ids, and their `similarity` (cosines); and `reason`, why an image of a folder
          can't be read, else "".

        Raises:
          UserError: for an unknown class or method, no images or too many of them, an image that can't be read, a network whose last maps
            can't tell places apart, or where neighbours are asked for and the run's images are gone.

        Example:
          >>> table = classifier.explain("photos/red/00.png", "explained.html", neighbours=1, verbose=False)
          >>> table.predicted[0], table["class"][0], table["map"][0].dtype, len(table.neighbours[0])
          ('red', 'red', dtype('float32'), 1)
        """
        wanted = explaining.Wanted(check_method(method), class_name, neighbours, top_k)
        return explaining.explain(self, sources, wanted, path, overwrite=overwrite, console=Console(quiet=not verbose))

    def map(
        self,
        data: Data | None = None,
        path: str | os.PathLike[str] | None = None,
        *,
        most: int = mapping.MOST,
        overwrite: bool = False,
        verbose: bool = True,
    ) -> pd.DataFrame:
        """Lays images out in the plane, near each other where the network finds them alike, on a page that shows each when pointed at.

        By t-SNE of the network's features (van der Maaten and Hinton, 2008).

        Args:
          data: labeled images, from `imgclf.load_images`; None = all of the run's own. Features come from the cache, or are computed and
            kept there.
          path: of the page, a self-contained HTML file; None = map.html in the run's folder, or map-2.html, … where that is of others.
          most: images on the map, 5,000 at most; of more, a sample by the hash of their names. 5,000 take about a minute.
          overwrite: whether to replace what stands at `path`, if it is not an older map of this model and these images.
          verbose: shows the progress, and tells where the page is.

        Returns:
          A row per image: `id`, `class_name`, `split`, `predicted` ("" where the run's predictions.csv doesn't tell), and `x`, `y` from 0
          to 1. Only nearness means something.

        Raises:
          UserError: if the run's images are gone, or there are fewer than 5.

        Example:
          >>> table = classifier.map(test, "map.html", verbose=False)
          >>> len(table), table.columns.tolist()
          (15, ['id', 'class_name', 'split', 'predicted', 'x', 'y'])
        """
        return mapping.map_images(self, data, path, most=most, overwrite=overwrite, console=Console(quiet=not verbose))

    def _repr_html_(self) -> str:
        """For notebooks."""
        height, width = self.config.data.image_size
        named = self.config.model.weights
        named = Path(named.removeprefix("path:")).name if named.startswith("path:") else named
        weights = "" if named == "none" else f", from {named}"
        about = {
            "network": f"{self.config.model.name}{weights}, {height} × {width} pixels",
            "classes": ", ".join(self.class_names[:12]) + (f", … ({len(self.class_names):,})" if len(self.class_names) > 12 else ""),
            "folder": "" if self.folder is None else str(self.folder),
        }
        results = (self.folder or Path()) / "results.json"
        found = json.loads(results.read_text(encoding="utf-8")) if self.folder is not None and results.exists() else None
        return notebook.classifier(about, found)

    def leaderboard(self) -> leaderboard.Leaderboard:
        """What `imgclf.create` tried within its time limit, a row per candidate in the order in which they came up.

        Returns:
          `name`, `about`, `kept` (whether it is this classifier), `top1` with its 95 % interval `low` to `high` on `n` images that it was
          not trained on (`judged_on`: "folds" or "val"), `loss`, `seconds`, `parameters`, `images_per_second` in prediction, and
          `decision`, the reason. What was not tried has no score.

        Raises:
          UserError: if the run had no time limit.

        Example:
          >>> classifier.leaderboard()
          Traceback (most recent call last):
          imgclf.errors.UserError: This run had no time limit, so that nothing else was tried: imgclf.create(…, time_limit=...
        """
        table = None if self.folder is None else leaderboard.read(self.folder)
        if table is None:
            raise UserError(
                "This run had no time limit, so that nothing else was tried: imgclf.create(…, time_limit='10 minutes') tries more."
            )
        return table

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the classifier into a folder of its own, which `imgclf.load` opens, here or elsewhere.

        The run's model, config, results and report are copied, not its data: of the training images only their sha256 are, so that
        `evaluate` can still tell them. Where this classifier was saved there before, it is replaced, in one move.

        Args:
          folder: it is made.
          overwrite: whether to replace another saved model there.

        Returns:
          The folder.

        Raises:
          UserError: for a folder with another saved model, unless `overwrite`; and, always, for one with anything else in it.

        Example:
          >>> folder = classifier.save("model")
          >>> imgclf.load(folder).sha256 == classifier.sha256
          True
        """
        return saving.save(self, folder, overwrite=overwrite)

    def export(  # noqa: PLR0913  (options by name)
        self,
        to: str = "onnx",
        out: str | os.PathLike[str] | None = None,
        *,
        int8: bool = False,
        fp16: bool = False,
        images: object = None,
        python: str = "",
        overwrite: bool = False,
        verbose: bool = True,
    ) -> Export:
        """Writes the classifier in a form that runs without imgclf, once it says of real images what this classifier says.

            classifier.export()  # ONNX, for onnxruntime, into the run's folder: exports/onnx
            classifier.export("stablehlo", "shipped")  # one file for CPU, CUDA and TPU, which JAX alone loads
            classifier.export(int8=True).table  # what it cost and bought

        Args:
          to: a format, see `imgclf.exports.choices.FORMATS`.
          out: the folder of the export; None = exports/FORMAT in the run's folder.
          int8: convolutions in integers of 8 bits, fitted to training images and scored on val; for ONNX.
          fp16: weights and activations in floats of 16 bits; for ONNX.
          images: to check the export with, a folder or a table or labeled images; None = the run's own, as far as they are still there.
          python: the interpreter that checks the export, where another environment than this one has what that needs: timm, Keras.
          overwrite: whether to replace an export of another classifier.
          verbose: shows the progress.

        Returns:
          The export; its `table` has size, cold start, milliseconds for 1 and 16 images, and how far the answers agree.

        Raises:
          UserError: for a format that doesn't suit; if a package is missing, no image can be read, or the folder is taken; if the export
            does not say what the classifier says. Nothing is left behind.

        Example:
          >>> classifier.export("tflite")
          Traceback (most recent call last):
          imgclf.errors.UserError: There is no export to 'tflite'; valid: 'keras', 'onnx', 'stablehlo', 'timm'.
        """
        options = ExportOptions(int8, fp16, python)
        return exporting.export(self, to, out, options=options, images=images, overwrite=overwrite, console=Console(quiet=not verbose))


def load(run: str | os.PathLike[str]) -> Classifier:
    """Loads the kept model of a finished run, a model that `Classifier.save` wrote, or one that was pushed to the Hugging Face hub.

        classifier = imgclf.load("runs/photos")
        classifier.predict("cat.jpg")
        imgclf.load("hf://USER/NAME")  # or hf://USER/NAME@REVISION: a branch, a tag, a commit

    What comes from the hub is kept in its cache, so that it can be loaded without a network again; see `deploy.hub` for why it can do no
    harm.

    Args:
      run: the folder, its URL (s3://bucket/runs/photos), or the address on the hub.

    Returns:
      The classifier, on this machine's devices; nothing is compiled before its first prediction.

    Raises:
      UserError: if the folder is not a finished run, or its model is damaged or not that of its config; if the address is of no model of
        imgclf, or the hub can't be reached.

    Example:
      >>> imgclf.load("runs/photos").class_names
      ('blue', 'green', 'red')
      >>> imgclf.load("photos")
      Traceback (most recent call last):
      imgclf.errors.UserError: photos is not a finished run (it has no results.json): finish it with imgclf train ...
    """
    if isinstance(run, str) and run.startswith(hub.PREFIX):
        return _loaded(hub.fetch(run), run)
    if isinstance(run, str) and places.is_url(run):
        if places.is_http(run):
            hub.check_code(config_lib.load_config(run), run)
        return load(copies.fetched(run))
    folder = files.path_of(run, "the folder of a run")
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} (looked for as {folder.absolute()}): name the folder of a finished run.")
    if not (folder / "results.json").exists():
        if (folder / "manifest.json").exists():
            raise UserError(f"{folder} is a bundle: its run is in {folder / 'run'}, name that.")
        if (folder / EXPORT_JSON).exists():
            raise UserError(f"{folder} is an export, which imgclf serve and its own predict.py open: name the run that it was made from.")
        raise UserError(
            f"{folder} is not a finished run (it has no results.json): finish it with imgclf train CONFIG --workdir={folder}, or name "
            "another folder."
        )
    return _loaded(folder, "")


def _loaded(folder: Path, address: str) -> Classifier:
    """The classifier in a folder; `address` is where on the hub the folder comes from, "" = it is the user's own."""
    compilation_cache.enable()
    place = address or folder
    try:
        config = config_lib.from_json((folder / "config.json").read_text(encoding="utf-8"))
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        checkpoint = folder / results["checkpoint"]
        rule = results.get("conformal")
        conformal = Conformal(rule["alpha"], rule["threshold"], rule["n"]) if rule else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"{place} is damaged: its config.json or results.json can't be read ({type(error).__name__}: {error}); restore the run from a "
            "copy, or train again."
        ) from error
    if address:
        hub.check_config(config, results, address)
    model, about = hub.read_model(checkpoint, str(place)) if checkpoint.suffix == ".safetensors" else load_model(checkpoint)
    if list(about["class_names"]) != results.get("class_names", list(about["class_names"])):
        raise UserError(
            f"{place} is of two runs: its results.json names {len(results['class_names'])} classes, its kept model "
            f"{len(about['class_names'])} or others; restore it from a copy, or train again."
        )
    classifier = Classifier(
        config,
        tuple(about["class_names"]),
        model["params"],
        model["batch_stats"],
        results.get("temperature", 1.0),  # runs from before it was fitted have none
        tuple(results.get("logit_offset") or ()),
        conformal,
        open_set=OpenSet.load(folder, about["params_sha256"]),
        folder=folder,
    )
    classifier.check()
    return classifier
