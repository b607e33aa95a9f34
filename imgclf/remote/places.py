"""What is a URL, how its parts are put together, and the file system of fsspec's that it names.

Credentials come from where the service's own client looks for them (environment, profile, login), never from a URL: a URL stands in a
run's config and in messages.
"""

import os
import posixpath
import re
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any

from imgclf import files
from imgclf.errors import UserError, missing_extra

if TYPE_CHECKING:
    import asyncio  # whose import takes longer than all of this file's

AT_ONCE = 32  # requests under way in a process: enough to hide 50 ms of latency behind the decoding of two cores
_STALLED = 20  # seconds without a byte after which a connection is given up
_CONNECT = 10  # seconds to reach a server
_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SETTINGS = ("AWS_", "FSSPEC_", "GOOGLE_", "GCS", "STORAGE_EMULATOR_HOST", "HF_", "HTTP_PROXY", "HTTPS_PROXY")

_lock = threading.Lock()
_systems: dict[tuple[Any, ...], Any] = {}


def is_url(place: object) -> bool:
    """Whether this names a place beyond this machine's disks; a `file://` URL is a path, see `without_file`."""
    return isinstance(place, str) and bool(_URL.match(place)) and not place.lower().startswith("file://")


def without_file(place: str) -> str:
    """A path out of a `file://` URL; anything else as it is."""
    return str(files.path_of(place, "a path")) if place.lower().startswith("file://") else place


def protocol(url: str) -> str:
    """What stands before `://`, in lower case."""
    return url.partition("://")[0].lower()


def is_http(url: str) -> bool:
    return protocol(url) in ("http", "https")


def join(root: str, name: str) -> str:
    """The place of a name below a root: either may be a URL or a path; a name that is a URL or an absolute path stays what it is.

    Names are plain: in an https:// URL they are quoted here.
    """
    name = without_file(name)
    if is_url(name) or not is_url(root):
        return name if is_url(name) else os.path.join(root, name)
    if is_http(root):
        base, question, query = root.partition("?")
        return f"{base.rstrip('/')}/{urllib.parse.quote(name.lstrip('/'))}{question}{query}"
    return f"{root.rstrip('/')}/{name.lstrip('/')}"


def parent(url: str) -> str:
    """The folder that a file lies in."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[0]


def last_name(url: str) -> str:
    """The last part of a URL, without what follows a question mark."""
    return urllib.parse.unquote(posixpath.basename(url.partition("?")[0].rstrip("/")))


def shown(url: str) -> str:
    """The URL as it may be printed: what follows a question mark may be a signature, and what stands before an @ a password."""
    parts = urllib.parse.urlsplit(url) if is_http(url) else None
    if parts is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def check(url: str) -> str:
    """Returns the URL without its last slashes.

    Raises:
      UserError: where it can't be one, or contains a password or a signature, which would come to stand in config.json.
    """
    if "::" in url:
        raise UserError(f"{url!r} is a chain of places: name one, such as s3://BUCKET/photos.")
    kind, _, rest = url.partition("://")
    if not rest.strip("/"):
        raise UserError(f"{url!r} names no place: write {kind}://{'HOST' if is_http(url) else 'BUCKET'}/NAME.")
    if "@" in rest.partition("/")[0]:
        raise UserError(
            f"{kind}://…@{rest.partition('/')[0].rpartition('@')[2]} contains a user or a password, which would come to stand in the run's "
            "config: leave it out, and give it in the environment, or for https:// in ~/.netrc."
        )
    if is_http(url) and "?" in rest:
        raise UserError(
            f"{shown(url)} has a query, which may be a signature, and would come to stand in the run's config: name a place without one; a "
            "list may contain such URLs."
        )
    return url.rstrip("/")


def system(url: str, what: str = "", extra: str = "remote") -> Any:
    """The file system of fsspec's for this URL; one for all threads of the process, and another one once the environment has changed.

    Args:
      url: any.
      what: needs it, for the error: "A bundle at s3://…".
      extra: of imgclf's, that has the package for it.

    Raises:
      UserError: without the package for it, and where there is no such kind of URL.
    """
    kind = protocol(url)
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(_SETTINGS)))
    key = (kind, os.getpid(), environment, _hub_endpoint() if kind == "hf" else "")
    with _lock:
        if key not in _systems:
            _systems[key] = _made(kind, what or shown(url), extra)
        return _systems[key]


def _made(kind: str, what: str, extra: str) -> Any:
    import fsspec

    packages = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
    try:
        made = fsspec.filesystem(kind, skip_instance_cache=True, **_options(kind))
    except ImportError as error:
        raise missing_extra(what, packages.get(kind, f"fsspec's package for {kind}:// ({error})"), extra) from None
    except ValueError:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "hf", "https"))
        raise UserError(f"{what}: nothing here knows what {kind}:// is; write one of {known}, or a path.") from None
    if kind in ("s3", "s3a"):
        made.retries = 1  # `transfer` tries again: with jitter, and not for ever
    if (loop := getattr(made, "loop", None)) is not None:
        loop.set_exception_handler(_told_of_errors)
    return made


def _told_of_errors(loop: "asyncio.AbstractEventLoop", context: dict[str, Any]) -> None:
    """What asyncio does with an error that nobody asked for: it logs it, with a traceback; but for a connection that broke.

    aiohttp sends a request's body in a task of its own. When the connection breaks, the request fails, is tried again, and is told of if
    that doesn't help; the task's own error says nothing more.
    """
    if not isinstance(context.get("exception"), ConnectionResetError):
        loop.default_exception_handler(context)


def _options(kind: str) -> dict[str, Any]:
    """How the file system is made: as many connections as requests, none that hangs, and no request for a size that is known already."""
    import fsspec

    if kind in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_STALLED)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "simple_links": False, "use_listings_cache": False}
    if kind in ("s3", "s3a"):
        # botocore's own retries, with their jitter, are for answers such as 503 Slow Down; its readers of bodies have none.
        ours = {
            "max_pool_connections": AT_ONCE,
            "connect_timeout": _CONNECT,
            "read_timeout": _STALLED,
            "retries": {"mode": "standard", "total_max_attempts": 2},
        }
        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        return {"config_kwargs": ours | own, "max_concurrency": 1, "use_listings_cache": False}
    return {} if kind in ("hf", "memory") else {"use_listings_cache": False}  # a listing of a million objects would stay in memory


def _hub_endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
