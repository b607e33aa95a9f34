"""What the self-contained pages share: thumbnails, templates, and a way to write them that overwrites nothing but such pages.

Names and paths come from the user's data: templates escape them, and scripts get them as JSON in which no "<" stands.
"""

import base64
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from imgclf import formatting
from imgclf.data.table import Dataset
from imgclf.errors import UserError

MARK = '<meta name="generator" content="imgclf">'  # by which a page that may be replaced is known
LOSSLESS_EDGE = 64  # images no larger than this are kept exactly: blown up, lossy coding would show
# Longer side of a thumbnail in pixels, by the number of images: what keeps a page below some 20 MB.
EDGES = ((150, 320), (500, 256), (1500, 192), (6000, 128))
SMALLEST_EDGE = 96


def check_target(path: str | os.PathLike) -> Path:
    """Returns where a page may be written.

    Raises:
      UserError: if something other than a page of imgclf's stands there.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the page in it, such as {path / 'page.html'}.")
    if path.exists():
        with path.open("rb") as file:
            if MARK.encode() not in file.read(2000):
                raise UserError(f"{path} exists and is no page of imgclf's: choose another path, or remove it.")
    return path


def write(path: Path, template: str, context: dict[str, Any]) -> Path:
    """Renders a template into `path`, in one move; folders above it are made."""
    loader = jinja2.PackageLoader("imgclf.reporting")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": formatting.percent,
        "interval": formatting.interval,
        "number": formatting.number,
        "duration": formatting.duration,
    }
    environment.globals |= {"count": formatting.count, "NONE": formatting.NONE, "mark": Markup(MARK)}
    page = environment.get_template(template).render(context)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        aside.write_bytes(page.encode("utf-8", "backslashreplace"))  # a file name may hold bytes that are no text
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): choose another path.") from error
    return path


def source(template: str) -> Markup:
    """The text of one of this package's own style sheets or scripts."""
    return Markup((Path(__file__).parent / "templates" / template).read_text(encoding="utf-8"))


def as_json(value: Any) -> Markup:
    """JSON that may stand in a <script>: ASCII, without "<", so that no name can end it."""
    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))


def edge_for(count: int) -> int:
    """The longer side of thumbnails, in pixels, on a page of so many."""
    return next((edge for limit, edge in EDGES if count <= limit), SMALLEST_EDGE)


def thumbnail(pixels: np.ndarray, edge: int) -> str:
    """uint8 [h, w, 3] → base64 of a WebP whose longer side is at most `edge`; small images stay exact, and nothing is enlarged."""
    picture = Image.fromarray(pixels)
    exact = max(picture.size) <= LOSSLESS_EDGE
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=exact, quality=78, method=2)
    return base64.b64encode(file.getvalue()).decode()


def thumbnails(dataset: Dataset, rows: Sequence[int] | np.ndarray, edge: int, console: Console) -> list[str]:
    """Thumbnails of these rows, in threads (decoders and coders release the GIL), with a progress bar.

    Raises:
      UserError: if an image has changed since it was verified.
    """

    def make(row: int) -> str:
        return thumbnail(dataset.reader.read(row, (edge, edge)), edge)

    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        return list(bar.track(pool.map(make, map(int, rows)), total=len(rows), description="thumbnails"))
