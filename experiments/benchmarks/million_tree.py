"""Makes and removes a folder of 1.2 million photos in 14,951 classes, train and validation, out of some hundred real ones: by hard links.

    python experiments/benchmarks/million_tree.py make PHOTOS TREE --images 1200000
    python experiments/benchmarks/million_tree.py remove TREE

PHOTOS is a folder of photos of any size and depth. They are encoded anew at 200x150 (JPEG, quality 85), as many as keep each below ext4's
65,000 names a file, and every name in TREE is a link to one of them, so that a million photos take 10 MB and a million names. Every
100,000th one is cut short: a set of this size has damaged files. Classes have 80 images each, one in 13 of them in validation; names of
files are 16 hexadecimal digits, as those of the landmarks that the tutorial of configs/large_vgg16.py was written for.
"""

import argparse
import io
import itertools
import os
import shutil
import sys
from pathlib import Path

from PIL import Image

CLASSES = 14_951
PER_CLASS = 80
PHOTOS = 400
SIZE = (200, 150)
DAMAGED = 100_000  # one in so many
VALIDATION = 13  # one in so many of each class
ORIGINALS = ".originals"  # hidden, so that no listing takes it for a class


def make(photos: Path, tree: Path, images: int) -> None:
    """Makes the tree; there must be nothing yet at its place.

    Raises:
      SystemExit: if the disk has too few inodes left for the folders, or no photo is found.
    """
    classes = min(CLASSES, max(2, images // PER_CLASS))
    free = os.statvfs(tree.parent).f_favail
    if free < 4 * classes + 2 * PHOTOS:
        sys.exit(f"{tree.parent} has {free:,} inodes left, too few for {2 * classes:,} folders.")
    originals = _originals(photos, tree / ORIGINALS)
    for split, label in itertools.product(("train", "validation"), range(classes)):
        os.makedirs(tree / split / f"{label:05d}")
    for number in range(images):
        turn, label = divmod(number, classes)
        split = "validation" if turn % VALIDATION == VALIDATION - 1 else "train"
        source = originals[0] if number % DAMAGED == DAMAGED // 2 else originals[1 + number % (len(originals) - 1)]
        os.link(source, f"{tree}/{split}/{label:05d}/{number * 0x9E3779B97F4A7C15 % 2**64:016x}.jpg")


def _originals(photos: Path, folder: Path) -> list[str]:
    """The photos at their new size; the first of them is damaged."""
    found = sorted(path for path in photos.rglob("*.jpg") if path.stat().st_size > 4096)
    if not found:
        sys.exit(f"{photos} holds no photo (*.jpg).")
    folder.mkdir(parents=True)
    encoded = []
    for path in found[:: max(1, len(found) // PHOTOS)][:PHOTOS]:
        stream = io.BytesIO()
        Image.open(path).convert("RGB").resize(SIZE).save(stream, "JPEG", quality=85)
        encoded.append(stream.getvalue())
    names = []
    for number, data in enumerate([encoded[0][: len(encoded[0]) // 2], *encoded]):
        names.append(f"{folder}/{number:03d}.jpg")
        Path(names[-1]).write_bytes(data)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("photos", type=Path)
    making.add_argument("tree", type=Path)
    making.add_argument("--images", type=int, default=1_200_000)
    commands.add_parser("remove").add_argument("tree", type=Path)
    args = parser.parse_args()
    if args.command == "make":
        make(args.photos, args.tree, args.images)
    elif (args.tree / ORIGINALS).is_dir():  # only what was made here
        shutil.rmtree(args.tree)
    else:
        sys.exit(f"{args.tree} was not made by this script.")


if __name__ == "__main__":
    main()
