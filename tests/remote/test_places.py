"""URLs and their parts."""

import asyncio
import gc

import aiohttp
import pytest

from imgclf.errors import UserError
from imgclf.remote import places


def test_what_is_a_url():
    assert all(map(places.is_url, ("s3://b/x", "https://h/x", "memory://x")))
    assert not any(map(places.is_url, ("photos", "/a/b", "C:\\x", "folder:s3://b", "file:///a/b", "", None)))
    assert places.without_file("file:///a%20b/c") == "/a b/c"


@pytest.mark.parametrize(
    ("root", "name", "joined"),
    [
        ("s3://b/p/", "cats/1 é.jpg", "s3://b/p/cats/1 é.jpg"),
        ("https://h/p", "cats/1 #%.jpg", "https://h/p/cats/1%20%23%25.jpg"),
        ("s3://b/p", "https://h/x.jpg", "https://h/x.jpg"),
        ("/here", "s3://b/x.jpg", "s3://b/x.jpg"),
        ("/here", "x.jpg", "/here/x.jpg"),
        ("/here", "file:///there/x.jpg", "/there/x.jpg"),
    ],
)
def test_names_below_a_root(root, name, joined):
    assert places.join(root, name) == joined


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://", "names no place"),
        ("s3:///", "names no place"),
        ("https://me:secret@h/p", "contains a user or a password"),
        ("s3://key:secret@bucket/p", "contains a user or a password"),
        ("https://h/p?X-Amz-Signature=secret", "has a query"),
        ("zip://x::s3://b/x.zip", "a chain of places"),
    ],
)
def test_urls_that_are_refused_say_no_secret(url, told):
    with pytest.raises(UserError, match=told) as error:
        places.check(url)
    assert "secret" not in str(error.value)


def test_an_unknown_kind_of_url_is_a_users_mistake():
    with pytest.raises(UserError, match="nothing here knows what nowhere:// is"):
        places.system("nowhere://b/x")
    with pytest.raises(UserError, match=r"dropbox://.*pip install 'imgclf\[remote\]'"):
        places.system("dropbox://b/x")


def test_broken_connections_leave_no_traceback_and_other_errors_do(caplog):
    loop = places.system("https://localhost/photos").loop

    async def dropped(error):
        async def fails():
            raise error

        task = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    for error in (aiohttp.ClientConnectionResetError("Cannot write to closing transport"), ValueError("a mistake")):
        asyncio.run_coroutine_threadsafe(dropped(error), loop).result(10)
    gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["a mistake"]
