"""The source "tfds": TensorFlow Datasets, read by `tfds.data_source` from ArrayRecord files, without tensorflow."""

import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from imgclf.data.readers import Reader
from imgclf.data.sources.base import Listing, Source
from imgclf.errors import UserError, nearest


class Tfds(Source):
    """A data set of TFDS, by `config.data.tfds`; TFDS prepares it where it is not there yet."""

    def check(self) -> None:
        """Raises a UserError where no data set, or no split, is named."""
        if not self.data.tfds.name:
            raise UserError("config.data.source='tfds' needs config.data.tfds.name, such as --set data.tfds.name=beans.")
        if not self._wanted():
            raise UserError("config.data.tfds names no split: set config.data.tfds.train and config.data.tfds.test.")

    def listing(self) -> Listing:
        """Lists the records. An id is the record's split, file and place in it, so it does not depend on how splits are sliced.

        Raises:
          UserError: if TFDS does not have the data set, or it is no classification of images, or splits overlap.
        """
        fields, wanted = self.data.tfds, self._wanted()
        info, image_key, label_key = self._prepared(list(wanted.values()))
        ids, sizes, mtimes, splits = [], [], [], []
        for split, spec in wanted.items():
            for part in info.splits[spec].file_instructions:
                status = os.stat(part.filename)
                shard = re.sub(r"\.array_record", "", os.path.basename(part.filename).removeprefix(f"{info.name}-"))
                take = part.examples_in_shard - part.skip if part.take == -1 else part.take
                ids += [f"{shard}/{place}" for place in range(part.skip, part.skip + take)]
                sizes += [status.st_size] * take
                mtimes += [status.st_mtime_ns] * take
                splits += [split] * take
        if len(set(ids)) < len(ids):
            raise UserError(
                f"The TFDS splits {list(wanted.values())} of {fields.name!r} overlap: name parts without common records, such as "
                "train[:80%] and train[80%:]."
            )
        return Listing(
            source=f"tfds:{info.full_name}",
            ids=ids,
            reader=TfdsReader(str(info.data_dir), tuple(wanted.values()), image_key, label_key, len(ids)),
            classes=None,
            class_names=tuple(info.features[label_key].names),
            splits=splits,
            sizes=np.array(sizes, np.int64),
            mtimes_ns=np.array(mtimes, np.int64),
            cached_as=str(info.data_dir),
        )

    def _wanted(self) -> dict[str, str]:
        fields = self.data.tfds
        specs = {"train": fields.train, "val": fields.val, "test": fields.test}
        return {split: spec for split, spec in specs.items() if spec}

    def _prepared(self, specs: Sequence[str]) -> tuple[Any, str, str]:
        """TFDS's description of the data set, and the names of its image's and label's feature."""
        import tensorflow_datasets as tfds  # slow to import
        from tensorflow_datasets.core.registered import DatasetNotFoundError

        fields = self.data.tfds
        folder = os.path.abspath(os.path.expanduser(fields.data_dir)) if fields.data_dir else None
        try:
            # Prepares the data set where it is not there yet, and checks the splits' names.
            info = tfds.data_source(fields.name, split=list(specs), data_dir=folder)[0].dataset_info
            return info, *_keys(info, tfds.features)
        except DatasetNotFoundError as error:
            place = f"in {folder or 'its default folder'}; {nearest(fields.name, tfds.list_builders(with_community_datasets=False))}"
            raise UserError(f"config.data.tfds.name={fields.name!r}: TFDS finds no such data set {place}") from error
        except UserError:
            raise
        except Exception as error:  # of downloads, disks and each data set's own code
            text = str(error).strip().splitlines()
            raise UserError(
                f"TFDS can't give {fields.name!r} ({type(error).__name__}: {text[0] if text else ''}): check config.data.tfds, or prepare "
                f'it first with tfds.data_source("{fields.name}").'
            ) from error


def _keys(info: Any, features: Any) -> tuple[str, str]:
    """The names of the image's and the label's feature: the supervised pair, else the only ones of their kind."""
    if info.supervised_keys and len(info.supervised_keys) == 2 and all(isinstance(key, str) for key in info.supervised_keys):
        image_key, label_key = info.supervised_keys
        if isinstance(info.features[label_key], features.ClassLabel):
            return image_key, label_key
    image_keys = [key for key, feature in info.features.items() if isinstance(feature, features.Image)]
    label_keys = [key for key, feature in info.features.items() if isinstance(feature, features.ClassLabel)]
    if len(image_keys) != 1 or len(label_keys) != 1:
        raise UserError(
            f"The TFDS data set {info.name!r} is no classification of images: its features are {sorted(info.features)}; choose one with "
            "one image and one class label."
        )
    return image_keys[0], label_keys[0]


class TfdsReader(Reader):
    """Reads the records of a prepared TFDS data set; their images stay encoded until a row is asked for."""

    def __init__(self, folder: str, splits: Sequence[str], image_key: str, label_key: str, length: int):
        """
        Args:
          folder: of the prepared data set (that of dataset_info.json), in ArrayRecord files.
          splits: TFDS split strings; their records are laid end to end.
          image_key: the feature with the image: bytes of a file, or uint8 [h, w, c].
          label_key: the feature with the label.
          length: number of records in all.
        """
        self._folder, self._splits, self._image_key, self._label_key = folder, tuple(splits), image_key, label_key
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}  # TFDS's objects hold the builder's class

    @functools.cached_property
    def _opened(self) -> tuple[list[Any], np.ndarray]:
        """The data sources, opened in the process that reads them, and the position at which each starts."""
        import tensorflow_datasets as tfds  # slow to import

        builder = tfds.builder_from_directory(self._folder)
        is_file = isinstance(builder.info.features[self._image_key], tfds.features.Image)
        decoders = {self._image_key: tfds.decode.SkipDecoding()} if is_file else None
        opened = [builder.as_data_source(split, decoders=decoders) for split in self._splits]
        return opened, np.cumsum([0, *map(len, opened)])

    def encoded(self, row: int) -> tuple[bytes | np.ndarray, int]:
        """The record's image as it is stored, and its label."""
        opened, starts = self._opened
        part = int(np.searchsorted(starts, row, side="right")) - 1
        record = opened[part][int(row - starts[part])]
        return record[self._image_key], int(record[self._label_key])
