"""HTTP as all of Open Images' parts use it: only http and https, no way from the internet into a private network, clear errors."""

import email.utils
import http.client
import ipaddress
import random
import socket
import time
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from imgclf.errors import UserError

USER_AGENT = "imgclf (Open Images downloader; respects Retry-After and X-Robots-Tag)"
REDIRECTS = 5
_REDIRECT_CODES = (301, 302, 303, 307, 308)


class ForbiddenAddressError(Exception):
    """A URL that is not http(s), or leads into a private network from outside of it."""


def is_private(address: str) -> bool:
    """Whether an IP address is loopback, link-local, of a private network or otherwise not of the public internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return not ip.is_global or ip.is_multicast or bool(mapped and not mapped.is_global)


def leads_to_private(url: str) -> bool:
    """Whether the URL's host is, or resolves to, a private address; an unknown host is not."""
    host = urlsplit(url).hostname or ""
    try:
        return any(is_private(str(info[4][0])) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError:
        return False


def check_url(url: str, what: str) -> str:
    """Returns a base URL with a final slash; raises UserError if it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{what}={url!r} is no http or https address; give one such as https://mirror.example.org/openimages/.")
    return url if url.endswith("/") else url + "/"


class _GuardedConnections:
    """Refuses, before a byte is sent, connections whose peer is private: also when a public name resolves to such an address."""

    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()  # type: ignore[misc]
        peer = sock.getpeername()[0]
        if is_private(peer):
            sock.close()
            raise ForbiddenAddressError(f"{self.host} is the private address {peer}")  # type: ignore[attr-defined]
        return sock


class _GuardedHTTP(_GuardedConnections, urllib3.connection.HTTPConnection):
    pass


class _GuardedHTTPS(_GuardedConnections, urllib3.connection.HTTPSConnection):
    pass


class _GuardedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _GuardedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class _GuardedAdapter(HTTPAdapter):
    """Guards direct connections; through a proxy of the user's the proxy decides."""

    def init_poolmanager(self, *args, **kwargs) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}


def create_session(*, allow_private: bool) -> requests.Session:
    """A session for one thread. Its own retries are off: who calls it knows what is worth another try.

    Args:
      allow_private: True where the user's own base URL lies in a private network, such as a mirror in the laboratory.
    """
    session = requests.Session()
    session.headers.update({"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})  # lengths and hashes are of the file itself
    adapter = HTTPAdapter(max_retries=0) if allow_private else _GuardedAdapter(max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def get(session: requests.Session, url: str, *, timeout: float, headers: dict[str, str] | None = None) -> requests.Response:
    """Opens a URL and follows its redirects, each checked; the body is not read yet.

    Raises:
      ForbiddenAddressError: if the URL, or one that it redirects to, is not http(s) or leads into a private network.
      requests.RequestException: for what goes wrong on the way.
    """
    for _ in range(REDIRECTS + 1):
        if urlsplit(url).scheme not in ("http", "https"):
            raise ForbiddenAddressError(f"{url!r} is neither http nor https")
        response = session.get(url, stream=True, timeout=timeout, headers=headers, allow_redirects=False)
        location = response.headers.get("Location")
        if response.status_code not in _REDIRECT_CODES or not location:
            return response
        response.close()
        url = urljoin(url, location)
    raise requests.TooManyRedirects(f"more than {REDIRECTS} redirects, the last to {url}")


def retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3: a number or a date), or None."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except (TypeError, ValueError):
        return None


def backoff(attempt: int, *, base: float = 0.5, limit: float = 60.0) -> float:
    """Seconds before try number `attempt` + 1: doubling, with full jitter's upper half, so that many clients don't return together."""
    return min(limit, base * 2**attempt) * random.uniform(0.5, 1.0)


def reason(error: BaseException) -> str:
    """What went wrong, in few words, out of requests' nested exceptions."""
    chain: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and inner not in chain:
        chain.append(inner)
        nested = [inner.__cause__, inner.__context__, getattr(inner, "reason", None), *inner.args]
        inner = next((one for one in nested if isinstance(one, BaseException)), None)
    if any(isinstance(one, socket.gaierror) for one in chain):
        return "its name is not known"
    for one in chain:
        if isinstance(one, OSError) and one.strerror and not isinstance(one, requests.RequestException):
            return one.strerror
    if any(isinstance(one, (http.client.IncompleteRead, urllib3.exceptions.IncompleteRead)) for one in chain):
        return "the connection ended too early"
    if any(isinstance(one, (requests.Timeout, TimeoutError, urllib3.exceptions.TimeoutError)) for one in chain):
        return "no answer in time"
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
