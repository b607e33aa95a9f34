"""When is tried again, and for how long."""

import socket

import pytest
import urllib3

from imgclf.errors import UserError
from imgclf.remote import retrying


def test_waits_double_from_the_first_one_on_and_end(monkeypatch):
    monkeypatch.setattr(retrying, "BACKOFF", 0.5)
    retry, waits = retrying.retries(10), []
    for _ in range(9):
        retry = retry.increment("GET", "http://h/")
        waits.append(retry.get_backoff_time())
    for number, wait in enumerate(waits):
        assert min(60, 0.5 * 2**number) <= wait <= min(60, 0.5 * 2**number + 0.25)
    with pytest.raises(urllib3.exceptions.MaxRetryError):
        retry.increment("GET", "http://h/")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "inf", "nan"])
def test_patience_is_a_number_of_seconds(monkeypatch, text):
    monkeypatch.setenv("IMGCLF_REMOTE_SECONDS", text)
    with pytest.raises(UserError, match="is no number of seconds above 0"):
        retrying.patience()


def test_a_mistake_in_the_code_is_not_tried_again():
    tries = []

    def attempt(seconds):
        tries.append(seconds)
        raise TypeError("no such argument")

    with pytest.raises(retrying.Unreachable, match="told"):
        retrying.persistent(attempt, lambda error: "told")
    assert len(tries) == 1


def test_a_host_that_no_name_server_knows_is_not_waited_for_as_long(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(retrying.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(retrying, "wait", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def attempt(_: float) -> None:
        try:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        except socket.gaierror as error:
            raise OSError("cannot connect") from error

    with pytest.raises(retrying.Unreachable, match="it was tried for 20 s"):
        retrying.persistent(attempt, str)
    assert 5 < now[0] <= 20
