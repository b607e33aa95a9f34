"""HTTP as all parts of Open Images use it: http and https only, no way from the internet into a private network, one policy of retries."""

import http.client
import ipaddress
import socket
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from imgclf.errors import UserError
from imgclf.remote import retrying

USER_AGENT = "imgclf (Open Images downloader; respects Retry-After and X-Robots-Tag)"
REDIRECTS = 5
LONGEST_WAIT = 300.0  # seconds; a server that asks for more is left to another run
_REDIRECT_CODES = (301, 302, 303, 307, 308)


class ForbiddenAddressError(Exception):
    """A URL that is not http(s), or leads into a private network from outside of it."""


def is_private(address: str) -> bool:
    """Tells whether an IP address is loopback, link-local, in a private network or otherwise not on the public internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    return not ip.is_global or ip.is_multicast or bool(mapped and not mapped.is_global)


def leads_to_private(url: str) -> bool:
    """Tells whether the URL's host is, or resolves to, a private address; a host that is not known does not."""
    host = urlsplit(url).hostname or ""
    try:
        return any(is_private(str(info[4][0])) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError:
        return False


def check_url(url: str, what: str) -> str:
    """Returns a base URL with a final slash.

    Args:
      what: the name of the option that it was given by, for the error.

    Raises:
      UserError: if it is no http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"{what}={url!r} is no http or https address; give one such as https://mirror.example.org/openimages/.")
    return url if url.endswith("/") else url + "/"


def _check_peer(sock: socket.socket, host: str) -> socket.socket:
    """Closes a connection whose peer is private, before a byte is sent: also where a public name resolves to such an address."""
    peer = sock.getpeername()[0]
    if is_private(peer):
        sock.close()
        raise ForbiddenAddressError(f"{host} is the private address {peer}")
    return sock


class _GuardedHTTP(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn(), self.host)


class _GuardedHTTPS(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _check_peer(super()._new_conn(), self.host)


class _GuardedHTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _GuardedHTTP


class _GuardedHTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPS


class _GuardedAdapter(HTTPAdapter):
    """Guards direct connections; where the user has a proxy, the proxy decides."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}


def create_session(*, allow_private: bool) -> requests.Session:
    """Returns a session for one thread, without retries of its own: between two tries the caller waits for the whole host (see `retries`).

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
    """Returns the seconds that the server asks to wait (RFC 9110, 10.2.3: a number or a date), or None."""
    value = response.headers.get("Retry-After")
    try:
        return retrying.retries(None).parse_retry_after(value) if value else None
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):  # neither a number nor a date that there is
        return None


def reason(error: BaseException) -> str:
    """Says what went wrong in a few words, out of the nested exceptions of requests and urllib3."""
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
