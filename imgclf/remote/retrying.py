"""When something that failed on the way is tried again, and how long is waited: one policy, by urllib3's Retry."""

import json
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from urllib3.util.retry import RequestHistory, Retry

from imgclf.errors import UserError

BUSY = frozenset({408, 429, 500, 502, 503, 504})  # answers after which another try may help
BACKOFF = 0.5  # seconds before the second try; they double from try to try, up to a minute
FIRST_CONTACT = 20.0  # seconds for which a place is looked for that may be misspelt
_NO_SUCH_HOST = 20.0  # seconds of patience with a host that no name server knows: a typing mistake, or no network at all
_LONGEST = 20.0  # seconds between two tries of `persistent`
PATIENCE = "IMGCLF_REMOTE_SECONDS"
_PATIENCE = 300.0
_MISTAKES = (AttributeError, ImportError, KeyError, NotImplementedError, TypeError, ValueError)  # another try would find them again

Result = TypeVar("Result")


class Unreachable(UserError):
    """A place beyond this machine doesn't answer, or not as it should, for as long as was waited."""


def retries(tries: int | None) -> Retry:
    """Returns urllib3's policy for a URL that may be tried so many times; None = as often as one likes.

    `increment` counts a failure and raises urllib3's MaxRetryError where none is left; `get_backoff_time` is the wait before the next
    try, in seconds, with jitter, so that many clients don't return together. urllib3 would try the second time at once: a first entry in
    the history lets it wait then as well.
    """
    return Retry(
        total=None if tries is None else tries - 1,
        backoff_factor=BACKOFF / 2,
        backoff_jitter=BACKOFF / 2,
        backoff_max=60,
        history=(RequestHistory("GET", None, None, None, None),),
    )


def wait(seconds: float) -> None:
    """Waits; the one place where the package sleeps between two tries."""
    time.sleep(seconds)


def patience() -> float:
    """For how many seconds a place that does not answer is tried: $IMGCLF_REMOTE_SECONDS, or 300.

    Raises:
      UserError: where the variable is no number above 0.
    """
    text = os.environ.get(PATIENCE, "")
    try:
        seconds = float(text) if text else _PATIENCE
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{PATIENCE}={text!r} is no number of seconds above 0: set it to one, or unset it for {_PATIENCE:.0f}.")
    return seconds


def persistent(attempt: Callable[[float], Result], told: Callable[[Exception], str], seconds: float | None = None) -> Result:
    """Returns what `attempt` returns, which is called again after failures that may pass, until `patience` is over.

    Args:
      attempt: is given how many seconds it may take: a third of what is waited in all, so that a connection over which a byte comes now
        and then does not hold all of the time.
      told: what the user is told of the last failure: the place, and the reason.
      seconds: of patience at most, where a mistake of the user's is likelier than a failure; None = all.

    Raises:
      FileNotFoundError, PermissionError: as `attempt` raises them: another try would not help.
      Unreachable: once patience is over, or at once for an answer that will stay the same, such as 400.
    """
    whole = min(patience(), seconds or patience())
    began = time.monotonic()
    end = began + whole
    retry = retries(None)
    while True:
        try:
            return attempt(max(0.1, min(whole / 3, end - time.monotonic())))
        except Exception as error:  # whatever the file system's own libraries raise
            status = status_of(error)
            if isinstance(error, FileNotFoundError) or status in (404, 410):
                raise FileNotFoundError(told(error)) from error
            if isinstance(error, PermissionError) or status in (401, 403):
                raise PermissionError(told(error)) from error
            if isinstance(error, UserError):
                raise
            if _no_such_host(error):
                end, whole = min(end, began + _NO_SUCH_HOST), min(whole, _NO_SUCH_HOST)
            if (status >= 400 and status not in BUSY) or _is_mistake(error) or without_credentials(error):
                raise Unreachable(f"{told(error)}.") from error
            retry = retry.increment("GET", "/")
            pause = min(retry.get_backoff_time(), _LONGEST)
            if time.monotonic() + pause >= end:
                raise Unreachable(f"{told(error)}; it was tried for {whole:.0f} s: look after the place or the network.") from error
            wait(pause)


def status_of(error: BaseException) -> int:
    """The HTTP status that an error of any of the clients is about; 0 where it is about none."""
    seen: BaseException | None = error
    while seen is not None:
        response = getattr(seen, "response", None)
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}  # botocore
        for value in (metadata.get("HTTPStatusCode"), getattr(response, "status_code", None), getattr(seen, "status", None)):
            if isinstance(value, int):
                return value
        if type(seen).__module__.startswith("gcsfs") and isinstance(code := getattr(seen, "code", None), int):
            return code
        seen = seen.__cause__
    return 0


def without_credentials(error: BaseException) -> bool:
    """Whether a client has found no credentials."""
    text = f"{type(error).__name__} {error} {type(error.__cause__).__name__}"
    return any(said in text for said in ("NoCredentials", "Unable to locate credentials", "DefaultCredentialsError"))


def _no_such_host(error: BaseException | None) -> bool:
    """Whether a host's name is unknown; the error is wrapped in others by each client."""
    while error is not None:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            return True
        if "Name or service not known" in str(error):  # aiohttp keeps the text only
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_mistake(error: Exception) -> bool:
    """Whether another try would find the same; an answer that was cut off may show as JSON that can't be read."""
    return isinstance(error, _MISTAKES) and not isinstance(error, OSError | json.JSONDecodeError)
