"""HTTP: who may be reached, and when a server says that it may be asked again."""

import pytest
import requests

from imgclf.openimages import transport


def test_retry_after_as_a_date():
    response = requests.Response()
    response.headers["Retry-After"] = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert transport.retry_after(response) == 0
    response.headers["Retry-After"] = "soon"
    assert transport.retry_after(response) is None


def test_private_addresses_are_refused_from_outside(server):
    session = transport.create_session(allow_private=False)
    with pytest.raises(transport.ForbiddenAddressError, match=r"127.0.0.1 is the private address"):
        transport.get(session, server.url("mirror/validation/x.jpg"), timeout=1)
    assert not server.log
    for address in (
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1",
        "0.0.0.0",
        "100.64.0.1",
    ):
        assert transport.is_private(address), address
    assert not transport.is_private("8.8.8.8")
    assert not transport.is_private("2606:4700::1111")


@pytest.mark.parametrize("value", ["soon", "", "-1", "Wed, 99 Oct 99999 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_is_none(value):
    response = requests.Response()
    response.headers["Retry-After"] = value
    assert transport.retry_after(response) is None
