"""What a download is asked to do: from where, how, and which URLs of which photos."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from imgclf.errors import UserError, nearest
from imgclf.openimages import releases, transport
from imgclf.openimages.ledger import FINAL, Ledger

SOURCES = ("mirror", "original", "thumbnail")
ENGINES = ("threads", "processes", "ray")
RATES = {"mirror": 200.0, "original": 5.0, "thumbnail": 5.0}  # requests per second and host, where the user names no rate


@dataclasses.dataclass(frozen=True)
class FetchOptions:
    """How one photo is fetched.

    Attributes:
      timeout: seconds to wait for a connection, and between two bytes.
      max_bytes: larger files are not kept.
      max_pixels: photos with more pixels are not kept.
      tries: how often a URL is tried within a run, where another try can help.
      runs: in how many runs a URL is tried that fails for the moment each time; after that it is abandoned. A higher number takes up the
        abandoned ones again.
      heed_robots: photos that their server marks X-Robots-Tag noai, noimageai, noindex or noimageindex are not kept.
    """

    timeout: float = 30.0
    max_bytes: int = 64 << 20
    max_pixels: int = 100_000_000
    tries: int = 4
    runs: int = 3
    heed_robots: bool = True


@dataclasses.dataclass(frozen=True)
class DownloadOptions:
    """Where photos come from, and how the work is shared.

    Attributes:
      sources: in order of choice, of mirror (longest side 1,024 px), original (Flickr), thumbnail (300,000 pixels, Flickr).
      mirror_url: of the mirror; photos lie at SPLIT/ID.jpg below it.
      workers: photos under way at once, over all jobs.
      rate: requests per second and host, over all jobs; None = RATES, 0 = unlimited.
      jobs: processes that share the work.
      engine: threads of this process, processes (joblib's), or ray (a Ray cluster's).
      fetch: how one photo is fetched.
    """

    sources: Sequence[str] = ("mirror",)
    mirror_url: str = releases.MIRROR_URL
    workers: int = 16
    rate: float | None = None
    jobs: int = 1
    engine: str = "threads"
    fetch: FetchOptions = dataclasses.field(default_factory=FetchOptions)

    def check(self) -> None:
        """Raises a UserError for a value that can't be meant."""
        for source in self.sources:
            if source not in SOURCES:
                raise UserError(f"--source={source!r} is unknown; {nearest(source, SOURCES)}")
        if self.engine not in ENGINES:
            raise UserError(f"--engine={self.engine!r} is unknown; {nearest(self.engine, ENGINES)}")
        transport.check_url(self.mirror_url, "--mirror-url")
        fetch = self.fetch
        positive = {
            "workers": self.workers, "jobs": self.jobs, "timeout": fetch.timeout, "max-bytes": fetch.max_bytes, "runs": fetch.runs,
        }  # fmt: skip
        for name, value in positive.items():
            if value <= 0:
                raise UserError(f"--{name}={value} must be greater than 0.")
        if self.rate is not None and self.rate < 0:
            raise UserError(f"--rate={self.rate} must be at least 0; 0 is unlimited.")


@dataclasses.dataclass(frozen=True)
class Job:
    """A photo to fetch.

    Attributes:
      image_id: 16 hexadecimal digits.
      split: Open Images' split of it.
      urls: (source, URL) in order of choice.
      size: of the original in bytes; 0 = unknown.
      md5: of the original, base64; "" = unknown.
      runs: URL → number of earlier runs in which it failed for the moment; a URL that is not there has not.
    """

    image_id: str
    split: str
    urls: tuple[tuple[str, str], ...]
    size: int = 0
    md5: str = ""
    runs: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def file(self, kind: str = "photos") -> str:
        """Returns the path below the folder: 256 folders, so that a million photos can be listed."""
        return f"{kind}/{self.image_id[:2]}/{self.image_id}.jpg"


@dataclasses.dataclass(frozen=True)
class History:
    """What earlier runs have found out about URLs.

    Attributes:
      settled: URLs that are not asked again: their answer is final, or they have failed for the moment in as many runs as they may.
      runs: URL → number of runs in which it failed for the moment.
    """

    settled: frozenset[str] = frozenset()
    runs: Mapping[str, int] = dataclasses.field(default_factory=dict)


def jobs_of(images: pd.DataFrame, options: DownloadOptions, history: History | None = None) -> Iterator[Job]:
    """Yields the photos with those of their URLs that are not settled.

    Args:
      images: the images of a selection.
    """
    history = history or History()
    mirror = transport.check_url(options.mirror_url, "--mirror-url")
    columns = ["image_id", "split", "original_url", "thumbnail_url", "original_size", "original_md5"]
    for image_id, split, original, thumbnail, size, md5 in images[columns].fillna("").itertuples(index=False):
        places = {"mirror": f"{mirror}{split}/{image_id}.jpg", "original": original, "thumbnail": thumbnail}
        urls = tuple((source, places[source]) for source in options.sources if places[source] and places[source] not in history.settled)
        runs = {url: history.runs[url] for _, url in urls if url in history.runs}
        yield Job(image_id, split, urls, int(size), md5, runs)


def remaining(images: pd.DataFrame, options: DownloadOptions, ledger: Ledger) -> tuple[pd.DataFrame, History]:
    """Returns the images that are not there and have a URL left to ask, and what is known about these URLs.

    Images that failed in earlier runs come last, so that bad URLs at the beginning don't look like a network that is down.
    """
    records = ledger.records
    absent = images[~images["image_id"].isin(set(records.loc[records["status"] == "ok", "image_id"]))]
    records = records[records["image_id"].isin(set(absent["image_id"]))]
    failed = records[~records["status"].isin(list(FINAL))]
    settled = {*records.loc[records["status"].isin(list(FINAL)), "url"], *failed.loc[failed["runs"] >= options.fetch.runs, "url"]}
    history = History(frozenset(settled), dict(zip(failed["url"], failed["runs"].astype(int), strict=True)))
    left = absent[pd.Series([bool(job.urls) for job in jobs_of(absent, options, history)], absent.index, dtype=bool)]
    late = left["image_id"].isin(set(failed["image_id"]))
    return pd.concat([left[~late], left[late]], ignore_index=True), history
