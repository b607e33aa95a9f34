"""Makes the gallery of the site: pages as the product itself writes them, of real photos, and pictures of the pages.

    python docs/gallery.py             # all, 6 minutes of CPU; with the extras [test] and [plan-tpu], and Chromium
    python docs/gallery.py --pictures  # the pictures alone, of the pages that are there
    python docs/gallery.py --look OUT  # into the folder OUT each whole page, wide and narrow, light and dark; told is what is wrong

Nothing comes from the caches of this machine, so that two runs differ in no more than what they took in time, and in the day. The photos
are 280 of clothing-dataset-small (CC0), the weights a MobileNetV2, both from the folder `shared` beside the checkout. The pages stand in
the repository, as the machine that builds the site has neither the photos nor the weights nor a browser, and they are small.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from PIL import Image
from rich.console import Console

import imgclf
from imgclf import progress
from imgclf.studies import Study
from imgclf.studies.run import run as run_study

DOCS = Path(__file__).resolve().parent
PAGES = DOCS / "extra" / "gallery"
SHARED = DOCS.parents[1] / "shared"
WEIGHTS = "mobilenet_v2_0.35_224_no_top.keras.h5"
CLASSES, PER_CLASS, EDGE = ("dress", "hat", "longsleeve", "shirt", "t-shirt"), 56, 200
FIELDS = {"model.variant": "width=0.35", "train.method": "probe", "data.scenes": "off", "eval.explain": 6}
MOST_BYTES = 900_000  # of a page
SAMPLES = ("report", "explore", "mistakes", "map", "explain", "compare", "augmentations", "study", "plan", "scenes")
FRONT = {"report": "report.png", "explore": "explore.png"}  # also shown by README.md and index.md
sys.path.insert(0, str(DOCS.parent / "tests" / "reporting"))
from chromium import Browser  # noqa: E402  (the tests' own, which the line above finds)

QUIET = Console(quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", action="store_true", help="take the pictures of the pages that are there, and make no page")
    parser.add_argument("--look", type=Path, metavar="OUT", help="take whole pages into a folder, to look at; the gallery stays as it is")
    args = parser.parse_args()
    with browser() as window:  # first, as without it all else would be in vain
        if not args.pictures and not args.look:
            make_pages()
        if args.look:
            look(window, args.look)
        else:
            take_pictures(window)


# ---- the pages ----


def make_pages() -> None:
    """Makes all pages in a folder of their own, so that no path of this machine stands in them; once all are there, they go to `PAGES`."""
    if not (SHARED / "weights" / WEIGHTS).is_file():
        raise SystemExit(f"There are no weights {SHARED / 'weights' / WEIGHTS}: the gallery is of photos and weights beside the checkout.")
    made = dict[str, str]()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), progress.bar(Console(stderr=True)) as bar:
        os.environ["IMGCLF_CACHE"] = str(Path(folder) / "cache")
        steps = bar.add_task("photos", total=3 + len(MAKERS))
        shrink_photos(Path("clothes"))
        shutil.copy(SHARED / "weights" / WEIGHTS, WEIGHTS)
        config = f"finetune:clothes,weights=path:{WEIGHTS}"
        for name, own in {"clothes-96px": {"data.image_size": (96, 96)}, "clothes": {}}.items():
            bar.update(steps, advance=1, description=f"training {name}")
            imgclf.train(config, fields=FIELDS | own | {"name": name}, workdir=f"runs/{name}", console=QUIET)
        for name, make in MAKERS.items():
            bar.update(steps, advance=1, description=f"{name}.html")
            page = make(config)
            text = page.read_text(encoding="utf-8").replace(f"{Path(folder).resolve()}{os.sep}", "")
            if folder in text or str(SHARED) in text or str(DOCS) in text:
                raise SystemExit(f"{name}.html names a folder of this machine")
            if len(text) > MOST_BYTES:
                raise SystemExit(f"{name}.html has {len(text):,} bytes")
            made[name] = text
            print(f"{name}.html: {len(text) / 1000:.0f} kB", flush=True)
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (PAGES / f"{name}.html").write_text(text, encoding="utf-8")


def shrink_photos(folder: Path) -> None:
    """The first photos of each class, training and test ones, at the size that the pages need."""
    for name in CLASSES:
        photos = sorted((SHARED / "data" / "clothing10").glob(f"*/{name}/*.jpg"))[:PER_CLASS]
        (folder / name).mkdir(parents=True)
        for number, photo in enumerate(photos):
            with Image.open(photo) as image:
                image.thumbnail((EDGE, EDGE))
                image.convert("RGB").save(folder / name / f"{number:02d}.jpg", quality=85)


def report(config: str) -> Path:
    return Path("runs/clothes/report.html")


def explore(config: str) -> Path:
    return imgclf.load_images("clothes", verbose=False)[::4].explore("explore.html", verbose=False)


def mistakes(config: str) -> Path:
    imgclf.load("runs/clothes").mistakes(tested(), "mistakes.html", verbose=False)
    return Path("mistakes.html")


def tested() -> imgclf.ImageData:
    """The photos that the classifier was tested on, as scores and explanations of training photos would flatter it."""
    ids = pd.read_csv("runs/clothes/predictions.csv")["id"]
    return imgclf.load_images("clothes", verbose=False)[ids.tolist()]


def embedding_map(config: str) -> Path:
    imgclf.load("runs/clothes").map(None, "map.html", most=80, verbose=False)
    return Path("map.html")


def explain(config: str) -> Path:
    photos = tested().table.drop_duplicates("class_name")["id"]
    imgclf.load("runs/clothes").explain([f"clothes/{photo}" for photo in photos], "explain.html", verbose=False)
    return Path("explain.html")


def compare(config: str) -> Path:
    imgclf.compare(["runs/clothes-96px", "runs/clothes"], "compare.html", console=QUIET)
    return Path("compare.html")


def augmentations(config: str) -> Path:
    import numpy as np

    from imgclf.reporting import augmentations as page

    plain = sorted(Path("clothes").glob("*/*.jpg"), key=lambda photo: photo.stat().st_size)  # photos without much detail make a small page
    first, second = (np.asarray(Image.open(photo)) for photo in plain[:2])
    return page.write_page([(plain[0].parent.name, first)], second, "augmentations.html")


def study(config: str) -> Path:
    sizes = {f"{size} px": {"data.image_size": (size, size)} for size in (224, 160, 96)}
    question = "How large do photos of clothes have to be for a probe of MobileNetV2?\n\nA smaller image is computed in less time."
    asked = Study(imgclf.load_config(config, fields=FIELDS), sizes, seeds=2, folds=3, question=question)
    run_study(asked, Path("study"), console=QUIET)
    return Path("study/study.html")


def plan(config: str) -> Path:
    config = "imagenet_resnet50:photos"  # which need not be there
    imgclf.plan(config, "v5e:4x4", images=1_281_167, classes=1000, batch_per_chip=128, programs=["train"], out="plan", console=QUIET)
    page = Path("plan/plan.html")
    if "not compiled" in page.read_text(encoding="utf-8"):
        raise SystemExit("The page of a plan needs the compiler for TPUs: python -m pip install -e '.[plan-tpu]'.")
    return page


def scenes(config: str) -> Path:
    return imgclf.find_scenes(config, fields={"model.variant": "width=0.35"}, out="scenes", console=QUIET).page


MAKERS: dict[str, Callable[[str], Path]] = {
    **{"report": report, "explore": explore, "mistakes": mistakes, "map": embedding_map, "explain": explain, "compare": compare},
    **{"augmentations": augmentations, "study": study, "plan": plan, "scenes": scenes},
}


# ---- pictures of them ----


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if not binary:
        raise SystemExit("There is no chromium on PATH (Debian: apt install chromium).")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        window = Browser(binary, Path(folder))
        try:
            yield window
        finally:
            window.close()


def take_pictures(window: Browser) -> None:
    """A picture of the top of each page for the gallery, and those that other pages show, light as paper is."""
    for name in SAMPLES:
        shown = DOCS / FRONT.get(name, "picture.png")
        take(window, name, shown, height=880)
        with Image.open(shown) as picture:
            picture.resize((640, 440), Image.Resampling.LANCZOS).save(PAGES / f"{name}.webp", quality=82, method=6)
        if name not in FRONT:
            shown.unlink()


def look(window: Browser, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        for width in (1280, 500):
            for dark in (False, True):
                file = folder / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                told = take(window, name, file, width=width, dark=dark)
                wide = window.evaluate("document.documentElement.scrollWidth")
                print(file.name, *told, "" if wide <= width else f"{wide} pixels wide", *window.violations(), sep="  ", flush=True)


def take(window: Browser, name: str, file: Path, *, width: int = 1280, height: int = 16_000, dark: bool = False) -> list[str]:
    """Takes a picture of a page; returns what it did that it should not have, see `Browser.open`."""
    told = window.open(PAGES / f"{name}.html", width, dark=dark)
    window.evaluate("new Promise(done => setTimeout(done, 400)).then(() => 0)")  # pictures that scripts draw
    window.screenshot(file, height)
    return told


if __name__ == "__main__":
    main()
