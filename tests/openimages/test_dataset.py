"""From class names to a data set, from Python."""

import pytest

from imgclf import openimages
from imgclf.errors import UserError


def test_a_notebook_can_do_what_the_terminal_can(server, own_cache, tmp_path):
    where = openimages.DownloadOptions(mirror_url=server.url("mirror/"), rate=0)
    seen = []
    dataset = openimages.get(
        ["French fries"],
        tmp_path / "fries",
        openimages.Metadata("V7", server.url("release/")),
        splits=["validation"],
        filters=openimages.Filters(per_class=5),
        download_options=where,
        crop_options=openimages.CropOptions(background=1),
        report=seen.append,
    )
    assert seen == [dataset.selection, dataset.downloads, dataset.crops]
    assert dataset.downloads.missing == 0
    assert {label for label, *_ in dataset.crops.counts()} == {"French fries", "background"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"download_options": openimages.DownloadOptions(workers=0)}, "workers=0 must be greater than 0"),
        ({"download_options": openimages.DownloadOptions(rate=-1)}, "rate=-1 must be at least 0"),
        ({"crop_options": openimages.CropOptions(format="gif")}, "format='gif' is unknown"),
        ({"filters": openimages.Filters(min_size=2)}, "min_size must lie within 0 and 1"),
        ({"filters": openimages.Filters(flags={"ocluded": True})}, "no flag 'ocluded'; did you mean 'occluded'"),
    ],
)
def test_wrong_options_are_told_before_anything_is_fetched_or_made(options, message, server, own_cache, tmp_path):
    with pytest.raises(UserError, match=message):
        openimages.get(["French fries"], tmp_path / "fries", openimages.Metadata("V7", server.url("release/")), **options)
    assert not server.log
    assert not (tmp_path / "fries").exists()
