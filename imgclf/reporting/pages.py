"""What the self-contained pages share: thumbnails, templates, and a way to write them that overwrites nothing but such pages.

Names and paths come from the user's data: templates escape them, and scripts get them as JSON in which no "<" stands.
"""

import base64
import functools
import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.console import Console

from imgclf import files, formatting, outputs, progress
from imgclf.data.table import Dataset
from imgclf.errors import UserError

if TYPE_CHECKING:
    import jinja2

LOSSLESS_EDGE = 64  # images no larger than this are kept exactly, as pages enlarge them, which would show a lossy coding
# Longer side of a thumbnail in pixels, by the number of images: what keeps a page below some 20 MB.
EDGES = ((150, 320), (500, 256), (1500, 192), (6000, 128), (50_000, 96))
SMALLEST_EDGE = 64


def digest_of(dataset: Dataset) -> str:
    """The sha256 of what a page shows of a data set: ids, contents, classes and splits. Its folder may move."""
    columns = dataset.table[["id", "sha256", "class_name", "split"]].to_csv(index=False)
    return hashlib.sha256(columns.encode("utf-8", "surrogateescape")).hexdigest()


def name_of(dataset: Dataset) -> str:
    """How people call a data set: its folder's name."""
    source = str(dataset.table["source"].iloc[0])
    return Path(source).name or source


@functools.cache  # with it, the code that Jinja has made of each template: a study writes a report of every run
def _templates() -> "jinja2.Environment":
    """This package's templates, and the filters they format values with."""
    import jinja2  # a quarter of a second, which a prediction needs no page for

    loader = jinja2.PackageLoader("imgclf.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": formatting.percent,
        "interval": formatting.interval,
        "number": formatting.number,
        "duration": formatting.duration,
        "flops": formatting.flops,
        "points": formatting.points,
    }
    environment.globals |= {"count": formatting.count, "NONE": formatting.NONE}
    return environment


def write(path: Path, template: str, context: Mapping[str, Any], of: outputs.Identity | None = None) -> Path:
    """Renders a template into `path`, in one move; folders above it are made.

    Args:
      path: of the page; what stands there is replaced: see `outputs.check_file`.
      template: its file name among this package's templates.
      context: what the template shows.
      of: what the page is of; None where any later page may replace it.

    Returns:
      The path.

    Raises:
      UserError: if the page can't be written.
    """
    page = _templates().get_template(template).render(context, mark=Markup(outputs.mark(of)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, page)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): choose another path.") from error
    return path


def source(template: str) -> Markup:
    """The text of one of this package's own style sheets or scripts."""
    return Markup((Path(__file__).parent / "templates" / template).read_text(encoding="utf-8"))


def script(*templates: str) -> dict[str, str]:
    """Some of this package's scripts as one, and the hash by which the page's policy lets it run and no other.

    Returns:
      `script`, and `script_sha256` in base64: what templates call them.
    """
    text = Markup("\n").join(map(source, templates))
    return {"script": text, "script_sha256": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}


def packed(data: bytes) -> str:
    """Data for a page's script, compressed and in base64, so that no name in it can end an element; `unpacked.js` reads it."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()


def as_json(value: Any) -> Markup:
    """JSON that may stand in a <script>: ASCII, without "<", so that no name can end it."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def edge_for(count: int) -> int:
    """The longer side of thumbnails, in pixels, on a page of so many."""
    return next((edge for limit, edge in EDGES if count <= limit), SMALLEST_EDGE)


def thumbnail(pixels: np.ndarray, edge: int) -> str:
    """uint8 [h, w, 3] → base64 of a WebP whose longer side is at most `edge`; small images stay exact, and nothing is enlarged."""
    return base64.b64encode(webp(pixels, edge)).decode()


def webp(pixels: np.ndarray, edge: int) -> bytes:
    """The file whose base64 `thumbnail` returns."""
    picture = Image.fromarray(pixels)
    exact = max(picture.size) <= LOSSLESS_EDGE
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=exact, quality=78, method=2)
    return file.getvalue()


def thumbnails(dataset: Dataset, rows: Sequence[int] | np.ndarray, edge: int, console: Console) -> list[str]:
    """Thumbnails of these rows, in threads (decoders and coders release the GIL), with a progress bar.

    Raises:
      UserError: if an image has changed since it was verified.
    """

    def make(row: int) -> str:
        return thumbnail(dataset.reader.read(row, (edge, edge)), edge)

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(console) as bar:
        return list(bar.track(pool.map(make, map(int, rows)), total=len(rows), description="thumbnails"))
