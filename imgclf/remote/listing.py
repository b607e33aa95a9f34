"""What there is at a URL: its kind, what a folder holds, and the sizes and stamps of files, without reading them."""

import hashlib
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

from imgclf.errors import UserError
from imgclf.remote import places, retrying, transfer

_STAMPS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "Last-Modified", "last_modified", "mtime", "updated", "created")
_NO_HEAD = (403, 405, 501)  # answers to HEAD of servers that allow GET: a signed URL is signed for GET alone

Item = TypeVar("Item")
Result = TypeVar("Result")


class Entry(NamedTuple):
    """A file or folder below the place that was listed.

    Attributes:
      name: relative to it, with "/".
      size: bytes; -1 where the server doesn't say.
      stamp: int64: two equal ones stand for the same contents, as far as the server says (ETag, else the time of change); 0 = unknown.
      is_folder: whether it holds others.
    """

    name: str
    size: int
    stamp: int
    is_folder: bool = False


Missing = FileNotFoundError | PermissionError  # what stands for a file that can't be had


def kind_of(url: str) -> str:
    """What stands at a URL: "file", "folder" or "" (nothing); of https:// everything that answers with a page is a folder.

    Raises:
      UserError: where the place can't be reached, or may not be read.
    """
    try:
        if places.is_http(url):
            headers = _head(url, retrying.FIRST_CONTACT)
            is_page = headers.get("Content-Type", "").startswith("text/html") and not url.lower().endswith((".html", ".htm"))
            return "folder" if is_page else "file"
        system = places.system(url)
        path = transfer.path_in(system, url)
        found = retrying.persistent(
            lambda seconds: transfer.call(system, "info", seconds, path), transfer.told(url, "read"), retrying.FIRST_CONTACT
        )
    except FileNotFoundError as error:
        if "no bucket" in str(error):
            raise UserError(str(error)) from error
        return ""
    except PermissionError as error:
        raise UserError(str(error)) from error
    return "folder" if found["type"] == "directory" else "file"


def entries(url: str) -> list[Entry]:
    """What a folder holds, sorted, not what its folders hold; of files of https:// sizes and stamps are unknown, see `sized`.

    Raises:
      FileNotFoundError, PermissionError, Unreachable: as `transfer.read` does.
    """
    system = places.system(url)
    path = transfer.path_in(system, url).rstrip("/")
    options = {"refresh": True} if places.protocol(url) == "hf" else {}  # the others keep no listings, see `places`
    asked = f"{path}/" if places.is_http(url) else path
    found = retrying.persistent(
        lambda seconds: transfer.call(system, "ls", seconds, asked, detail=True, **options), transfer.told(url, "listed")
    )
    listed = []
    for info in found:
        name = info["name"]
        if not name.startswith(f"{path}/"):  # the folder's own marker, or a link to elsewhere
            continue
        is_folder = info["type"] == "directory" or name.endswith("/")
        name = name[len(path) + 1 :].rstrip("/")
        if places.is_http(url):
            if "?" in name or "#" in name:  # the buttons of a page, such as those that sort it
                continue
            name = urllib.parse.unquote(name)
        if name and "/" not in name:
            size = -1 if is_folder or info.get("size") is None else int(info["size"])
            listed.append(Entry(name, size, _stamp(info), is_folder))
    return sorted(listed)


def tree(url: str, enter: Callable[[str, list[Entry]], Iterable[str]]) -> Iterator[tuple[str, list[Entry] | PermissionError]]:
    """Lists a folder and all below it, `places.AT_ONCE` folders at a time, in whatever order they come.

    A folder is listed by requests of its own: of a million objects in 15,000 folders, that is 15,000 requests at once instead of 1,000 one
    after another, and a failure repeats one folder's.

    Args:
      url: of the folder.
      enter: chooses which folders below one are listed: of its name relative to the URL ("" for the first) and what it holds, their names.

    Returns:
      Each folder's name, "" for the first, and what it holds; the error where it may not be listed.

    Raises:
      FileNotFoundError, Unreachable: as `transfer.read` does.
    """

    def listed(name: str) -> tuple[str, list[Entry] | PermissionError]:
        try:
            return name, entries(places.join(url, name) if name else url)
        except PermissionError as error:
            return name, error

    waiting = [""]
    pool = ThreadPoolExecutor(places.AT_ONCE, thread_name_prefix="remote-list")
    under_way: set[Future[tuple[str, list[Entry] | PermissionError]]] = set()
    try:
        while waiting or under_way:
            while waiting:
                under_way.add(pool.submit(listed, waiting.pop()))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                folder, found = future.result()
                if isinstance(found, list):
                    waiting += [f"{folder}/{name}" if folder else name for name in enter(folder, found)]
                yield folder, found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        if places.protocol(url) == "hf":
            places.system(url).invalidate_cache()


def sized(root: str, names: Sequence[str], advance: Callable[[], object] = lambda: None) -> list[Entry | Missing]:
    """The sizes and stamps of files below a root, in their order; an error where there is no such file, or it may not be read.

    Each folder is listed once; https:// is asked for each file, as its pages don't say sizes.

    Args:
      root: a URL or a path.
      names: URLs, or relative to the root; all of them lie at URLs.
      advance: is called for each folder and each file that was asked for.

    Raises:
      Unreachable: as `transfer.read` does.
    """
    urls = [places.join(root, name) for name in names]
    known: dict[str, Entry | Missing] = {}
    refused: dict[str, PermissionError] = {}

    def listed(folder: str) -> tuple[str, list[Entry] | PermissionError]:
        try:
            return folder, entries(folder)
        except FileNotFoundError:
            return folder, []
        except PermissionError as error:
            return folder, error

    for folder, found in at_once(listed, sorted({places.parent(url) for url in urls if not places.is_http(url)})):
        if isinstance(found, PermissionError):
            refused[folder] = found
        else:
            known |= {f"{folder}/{entry.name}": entry for entry in found if not entry.is_folder}
        advance()

    def asked(url: str) -> tuple[str, Entry | Missing]:
        try:
            headers = _head(url)
        except (FileNotFoundError, PermissionError) as error:
            return url, error
        length = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        return url, Entry(url, int(length) if length.isdigit() and not headers.get("Content-Encoding") else -1, _stamp(headers))

    for url, answer in at_once(asked, sorted({url for url in urls if places.is_http(url)})):
        known[url] = answer
        advance()
    answers: list[Entry | Missing] = []
    for name, url in zip(names, urls, strict=True):
        one = known.get(url) or refused.get(places.parent(url)) or FileNotFoundError(f"{places.shown(url)} is not there")
        answers.append(one._replace(name=name) if isinstance(one, Entry) else one)
    return answers


def at_once(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yields what `work` makes of the items as it is done, `places.AT_ONCE` of them under way."""
    pool = ThreadPoolExecutor(places.AT_ONCE, thread_name_prefix="remote-ask")
    waiting, under_way = iter(items), set[Future[Result]]()
    try:
        while True:
            for item in waiting:
                under_way.add(pool.submit(work, item))
                if len(under_way) >= 2 * places.AT_ONCE:
                    break
            if not under_way:
                return
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _head(url: str, patience: float | None = None) -> Mapping[str, str]:
    """The headers of a file at an https:// URL; fsspec's own `info` takes every failure for a missing file."""
    from fsspec.asyn import sync

    system = places.system(url)

    async def ask() -> Mapping[str, str]:
        session = await system.set_session()
        address = system.encode_url(url)
        async with session.head(address, allow_redirects=True, headers={"Accept-Encoding": "identity"}) as response:
            if response.status not in _NO_HEAD:
                response.raise_for_status()
                return response.headers
        async with session.get(address, headers={"Accept-Encoding": "identity", "Range": "bytes=0-0"}) as response:
            response.raise_for_status()
            return response.headers

    return retrying.persistent(lambda seconds: sync(system.loop, ask, timeout=seconds), transfer.told(url, "read"), patience)


def _stamp(info: Mapping[str, Any]) -> int:
    for name in _STAMPS:
        if info.get(name):
            return int.from_bytes(hashlib.sha256(str(info[name]).encode()).digest()[:8], "little", signed=True)
    return 0
