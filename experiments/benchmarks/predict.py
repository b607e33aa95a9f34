"""How many images a second `imgclf predict` does, beside the bare extraction of features.

    python experiments/benchmarks/predict.py RUN DIR [--images 1024] [--batch 64] [--pairs 3]

RUN is a finished run, DIR holds images of any kind, taken again and again until there are --images of them. Bare extraction decodes
the same files by the evaluation pipeline and runs the backbone, and does nothing with the features. Both are warm; times are those after
compilation. Quote ratios from a quiet machine.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from flax import nnx
from rich.console import Console

import imgclf
from imgclf import models
from imgclf.data import images, pipeline
from imgclf.data.paths import walk
from imgclf.data.readers import FileReader
from imgclf.data.table import Dataset
from imgclf.deploy import inputs, predict_files
from imgclf.deploy.options import Options
from imgclf.training.state import split_model
from imgclf.training.step import normalize


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    args = parser.parse_args()
    classifier = imgclf.load(args.run)
    with tempfile.TemporaryDirectory() as folder:
        files = walk(args.folder).paths
        paths = list(itertools.islice(itertools.cycle(files), args.images))
        (Path(folder) / "list.txt").write_text("".join(f"{path}\n" for path in paths))
        listed = inputs.find([f"{folder}/list.txt"], root=args.folder)
        bare = bare_extraction(classifier, args.folder, paths, args.batch)
        options = Options(batch_size=args.batch)

        def predict() -> None:
            predict_files.predict_files(classifier, listed, Path(folder) / "out.csv", options, Console(quiet=True), overwrite=True)

        classifier.predict_probabilities(listed.paths[: args.batch], batch_size=args.batch)
        bare(args.batch)  # compiles
        ratios = []
        for pair in range(1, args.pairs + 1):
            ours, theirs = args.images / seconds(predict), args.images / seconds(lambda: bare(args.images))
            ratios.append(ours / theirs)
            print(f"pair {pair}: predict {ours:.1f} img/s, bare extraction {theirs:.1f} img/s, ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bare_extraction(classifier, root: str, paths: list[str], batch: int):
    """Returns extract(count): the features of the first `count` images, thrown away."""
    config = classifier.config.copy_and_resolve_references()
    config.loader.eval_batch_size, config.data.in_memory_mb = batch, 0
    sizes, shapes = [], {}
    for path in paths:
        full = Path(root) / path
        if path not in shapes:
            shapes[path] = images.decode(full.read_bytes()).shape[:2]
        sizes.append(full.stat().st_size)
    heights, widths = zip(*(shapes[path] for path in paths), strict=True)
    table = pd.DataFrame({"id": paths, "label": 0, "split": "test", "height": heights, "width": widths})
    reader = FileReader(str(Path(root).absolute()), paths, np.array(sizes))
    model = models.create(config, len(classifier.class_names), load_weights=False)
    graphdef, _, _ = split_model(model)

    @jax.jit
    def features(params, batch_stats, image):
        merged = nnx.merge(graphdef, nnx.State(params), nnx.State(batch_stats))
        return merged.features(normalize(image, config.data.mean, config.data.std))

    trees = jax.device_put((classifier.params, classifier.batch_stats))

    def extract(count: int) -> None:
        chosen = Dataset(table.iloc[:count], classifier.class_names, pd.DataFrame(), {}, reader)
        with pipeline.eval_batches(chosen, config, "test") as batches:
            waiting = None
            for one in batches:
                out = features(*trees, one["image"])
                if waiting is not None:
                    np.asarray(waiting)
                waiting = out
            np.asarray(waiting)

    return extract


if __name__ == "__main__":
    main()
