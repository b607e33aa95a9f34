"""A small server of S3's protocol for remote.py: a folder in memory, and a wait before each answer, as a network and a store have.

    python experiments/benchmarks/remote_server.py FOLDER --latency 30

Answers GetObject, HeadObject and ListObjectsV2 of the one bucket "photos"; prints its address. A real store's protocol is tested against
moto, whose 170 requests a second on these cores would be what is measured here.
"""

import argparse
import asyncio
import hashlib
from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=30, help="milliseconds before each answer")
    arguments = parser.parse_args()
    files = {path.relative_to(arguments.folder).as_posix(): path.read_bytes() for path in arguments.folder.rglob("*") if path.is_file()}

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(arguments.latency / 1000)
        if "list-type" in request.query:
            return web.Response(text=listed(files, request.query.get("prefix", "")), content_type="application/xml")
        if request.path.strip("/") == "photos":  # HeadBucket
            return web.Response()
        data = files.get(request.path.removeprefix("/photos/"))
        if data is None:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml")
        return web.Response(
            body=data, headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
        )

    async def serve() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def listed(files: dict[str, bytes], prefix: str) -> str:
    """The answer to ListObjectsV2 with the delimiter "/"."""
    below = {name[len(prefix) :] for name in files if name.startswith(prefix)}
    folders = sorted({name.split("/")[0] for name in below if "/" in name})
    keys = sorted(name for name in below if "/" not in name)
    contents = "".join(_entry(prefix + key, files[prefix + key]) for key in keys)
    prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(prefix + name)}/</Prefix></CommonPrefixes>" for name in folders)
    count = len(keys) + len(folders)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>photos</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><Delimiter>/</Delimiter><KeyCount>{count}</KeyCount><MaxKeys>100000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{contents}{prefixes}</ListBucketResult>"
    )


def _entry(key: str, data: bytes) -> str:
    when, etag = "2024-01-01T00:00:00.000Z", hashlib.md5(data).hexdigest()
    about = f"<Size>{len(data)}</Size><LastModified>{when}</LastModified><ETag>&quot;{etag}&quot;</ETag>"
    return f"<Contents><Key>{escape(key)}</Key>{about}</Contents>"


if __name__ == "__main__":
    main()
