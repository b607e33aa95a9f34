"""What stands where in a tar file: read through once, header by header, and kept in the cache."""

import gzip
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd

from imgclf import files
from imgclf.data.shard_names import ShardFile
from imgclf.remote import places, transfer

_TEXTS = (".cls", ".json", ".txt", ".label", ".class")  # members whose contents are kept
_MOST_TEXT = 1 << 20  # bytes


class Member(NamedTuple):
    """A file in a tar file: its name, where its bytes begin, how many they are, and the contents of one that may say the class."""

    name: str
    offset: int
    size: int
    text: str


def readable(shard: ShardFile) -> str:
    """The path or URL of a tar file that can be read in any order: a compressed one is unpacked into the cache, once."""
    if not shard.path.lower().endswith("gz"):
        return shard.path
    path = _cached(shard, ".tar")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, shared=True) as aside, aside.open("wb") as unpacked, _opened(shard) as packed:
            shutil.copyfileobj(gzip.GzipFile(fileobj=packed), unpacked)
    return str(path)


def members(shard: ShardFile) -> tuple[list[Member], str]:
    """The files in a tar file, and what is wrong with it; "" = nothing."""
    cached = _cached(shard, ".parquet")
    if cached.exists():
        table = pd.read_parquet(cached)
        return list(map(Member, *(table[name].tolist() for name in Member._fields))), ""
    path = readable(shard)
    local = shard if path == shard.path else ShardFile(path, shard.name, Path(path).stat().st_size, 0)
    rows, problem = list[Member](), ""
    with _opened(local) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not member.isfile():
                        continue
                    if member.offset_data + member.size > local.size:
                        raise tarfile.ReadError(f"{member.name} is cut off")
                    text = ""
                    if member.name.lower().endswith(_TEXTS) and member.size <= _MOST_TEXT:
                        extracted = tar.extractfile(member)
                        text = extracted.read().decode("utf-8", "replace") if extracted else ""
                    rows.append(Member(member.name, member.offset_data, member.size, text))
        except tarfile.TarError as error:
            problem = str(error)
    if not problem:  # a damaged one may be mended
        cached.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(cached, shared=True) as aside:
            pd.DataFrame(rows, columns=list(Member._fields)).to_parquet(aside, index=False)
    return rows, problem


def _cached(shard: ShardFile, extension: str) -> Path:
    return files.cached("webdataset", shard.key, extension)


def _opened(shard: ShardFile) -> BinaryIO:
    if not places.is_url(shard.path):
        return open(shard.path, "rb")
    return io.BufferedReader(_Far(shard.path, shard.size), transfer.CHUNK)


class _Far(io.RawIOBase):
    """A file at a URL, read by ranges."""

    def __init__(self, url: str, size: int):
        self._url, self._size, self._at = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:  # a Buffer, which Python 3.11 has no name for
        data = transfer.read_range(self._url, self._at, min(self._at + len(buffer), self._size))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
