"""The source "packed": what `imgclf data pack` has made, with its classes, splits, groups and quarantine."""

from collections import Counter

import pandas as pd

from imgclf import formatting
from imgclf.data.packing import damage, manifest
from imgclf.data.packing.manifest import Manifest
from imgclf.data.packing.places import place_of
from imgclf.data.packing.reader import PackedReader
from imgclf.data.sources.base import Listing, Source
from imgclf.errors import UserError


class Packed(Source):
    """The pack in the folder `config.data.path`."""

    def check(self) -> None:
        """Raises a UserError where there is no pack of this version."""
        if not self.data.path:
            raise UserError("config.data.source='packed' needs config.data.path: train by packed:DIR, or give --set data.path=DIR.")
        self._check_fields(manifest.read(place_of(self.data.path)))

    def listing(self) -> Listing:
        """Lists the pictures from the index; no record is read. The table is that of the photos: their sizes, hashes and splits.

        A picture whose shard is gone or too short, or that `imgclf data check` has found damaged, is quarantined.

        Raises:
          UserError: if there is no pack, or a table of it can't be read.
        """
        place = place_of(self.data.path)
        about = manifest.read(place)
        self._check_fields(about)
        index = manifest.read_table(place, manifest.INDEX)
        bad = damage.known(place, about, index)
        good = index[~index["id"].isin([name for name, _, _ in bad])].reset_index(drop=True)
        reader = PackedReader(place, about.shards, good, raw=about.form.format == "raw")
        reader.kept_as = about.kept_as
        quarantine = manifest.read_table(place, manifest.QUARANTINE)
        notes = []
        if bad:
            notes = [f"{formatting.count(len(bad), 'picture')} of the pack can't be read, such as {bad[0][0]}: {bad[0][2]}."]
        return Listing(
            source=str(place),
            ids=good["id"].tolist(),
            reader=reader,
            # a patch of labels stands in place of the labels that the photos had
            classes=good["original_class" if self.data.label_patch and "original_class" in good else "class_name"].tolist(),
            class_names=about.class_names,
            splits=good["split"].tolist(),
            groups=good["group"].tolist(),
            scenes=good["scene"].tolist() if "scene" in good else None,
            quarantine=[*quarantine.itertuples(index=False, name=None), *bad],
            ignored=Counter(about.ignored),
            notes=notes,
            inspected=_inspected(good),
            value_range=about.value_range,
            renamed=tuple(self.data.class_map) == about.class_map,
        )

    def _check_fields(self, about: Manifest) -> None:
        """Raises a UserError where the pictures were made otherwise than the config has it."""
        if not about.exact and self.data.color_profile != about.color_profile:
            raise UserError(
                f"config.data.color_profile={self.data.color_profile} does not go with the pack {self.data.path}, whose pictures were made "
                f"with {about.color_profile}: set it to that, or pack the photos anew."
            )


def _inspected(index: pd.DataFrame) -> pd.DataFrame:
    """What verification had found of the photos when they were packed."""
    found = index[["sha256", "width", "height", "phash"]].reset_index(drop=True)
    return found.assign(reason="", detail="", kind="", low=0.0, high=0.0, noisy=False, label=-1)
