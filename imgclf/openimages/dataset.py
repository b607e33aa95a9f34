"""From class names to a cropped data set in one call."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from imgclf.openimages import releases
from imgclf.openimages.crops import CropOptions, Crops, crop
from imgclf.openimages.downloader import Downloads, download
from imgclf.openimages.jobs import DownloadOptions
from imgclf.openimages.metadata import Metadata
from imgclf.openimages.selection import Filters, Selection, select


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What was selected, downloaded and cropped."""

    selection: Selection
    downloads: Downloads
    crops: Crops


def get(  # noqa: PLR0913  (options by name)
    names: Sequence[str],
    folder: Path,
    metadata: Metadata | None = None,
    *,
    splits: Sequence[str] = releases.SPLITS,
    filters: Filters | None = None,
    image_labels: bool = False,
    negatives: bool = False,
    download_options: DownloadOptions | None = None,
    crop_options: CropOptions | None = None,
    report: Callable[[Selection | Downloads | Crops], None] = lambda result: None,
    console: Console | None = None,
) -> Dataset:
    """Selects, downloads and crops; called again, it continues where it was.

    Photos that can't be had stop nothing, as long as one is there; `Downloads.missing` counts them.

    Args:
      names: of classes, as are `splits`, `filters`, `image_labels` and `negatives`: see `select`.
      folder: to be made, or to be continued.
      metadata: of the version; V7 by default.
      download_options: see `download`.
      crop_options: see `crop`.
      report: is called with the result of each step as soon as the step is done.
      console: for the progress bars.

    Raises:
      UserError: for options that can't be meant, before anything is fetched; for what `select`, `download` and `crop` raise it for; and
        if not a single photo could be had.
    """
    download_options, crop_options = download_options or DownloadOptions(), crop_options or CropOptions()
    download_options.check()
    crop_options.check()
    metadata = metadata or Metadata(console=console)
    selection = select(names, metadata, splits=splits, filters=filters, image_labels=image_labels, negatives=negatives)
    selection.save(folder)
    report(selection)
    downloads = download(folder, download_options, console)
    report(downloads)
    downloads.check()
    crops = crop(folder, crop_options, console)
    report(crops)
    metadata.keep()
    return Dataset(selection, downloads, crops)
