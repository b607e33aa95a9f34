"""The images of a request: its body read within the limits, and taken apart."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from imgclf.serving.limits import MB, Limits, Refusal

_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last is what `curl --data-binary` says of anything


class Upload(NamedTuple):
    """One image of a request."""

    name: str  # as the client calls it; "" where it doesn't
    data: bytes


class _InMemory(MultiPartParser):
    spool_max_size = 2**31  # the limit of the body holds already: no temporary files
    complete = False

    def on_end(self) -> None:
        self.complete = True  # the last boundary has come: else the last part would be missing without a word


class Uploads:
    """Reads requests' images; all of them together hold no more than `Limits.held_bytes`."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self._held = 0

    @contextlib.asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[list[Upload]]:
        """The images of a request, as long as the block runs; at least one.

        Raises:
          Refusal: for a body that is too large, too slow or damaged, that holds no images, or more of them than may be.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        multipart = kind == "multipart/form-data"
        if not multipart and kind not in _RAW and not kind.startswith("image/"):
            raise Refusal(415, "media_type", f"The body is {kind}: send multipart/form-data, or the bytes of one image as image/jpeg.")
        before = [0]
        try:
            body = await self._body(request, before)
            found = await self._parts(request, body) if multipart else [Upload("", body)]
            if not found or (not multipart and not body):
                raise Refusal(422, "no_image", "The request holds no image: send one or more files, in fields of any name.")
            for upload in found:
                if len(upload.data) > self.limits.image_bytes:
                    raise Refusal(
                        413, "image_bytes", f"An image has {len(upload.data) / MB:.1f} MB, more than {_mb(self.limits.image_bytes)}."
                    )
            yield found
        finally:
            self._held -= before[0]

    async def _body(self, request: Request, taken: list[int]) -> bytes:
        limits, loop = self.limits, asyncio.get_running_loop()
        most = limits.request_bytes
        too_large = Refusal(413, "request_bytes", f"The body is larger than {_mb(most)}: send fewer or smaller images at once.")
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise too_large
        parts: list[bytes] = []
        size, started, chunks = 0, loop.time(), aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(started + limits.grace + size / limits.bytes_per_second):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise Refusal(408, "slow_body", f"The body comes at less than {limits.bytes_per_second:,} bytes per second.") from None
            if chunk is None:
                return b"".join(parts)
            size += len(chunk)
            if size > most:
                raise too_large
            if self._held + len(chunk) > limits.held_bytes:
                raise Refusal(503, "held_bytes", "Other requests hold all memory that there is for images: come back.", retry_after=1)
            self._held += len(chunk)
            taken[0] += len(chunk)
            parts.append(chunk)

    async def _parts(self, request: Request, body: bytes) -> list[Upload]:
        limits = self.limits

        async def once() -> AsyncGenerator[bytes, None]:
            yield body
            yield b""

        parser = _InMemory(request.headers, once(), max_files=limits.images, max_fields=limits.images, max_part_size=limits.image_bytes)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if "Too many" in error.message:
                raise Refusal(413, "images", f"The request holds more than {limits.images} images: send fewer at once.") from error
            raise Refusal(400, "multipart", f"The multipart body is damaged: {error.message}") from error
        if not parser.complete:
            raise Refusal(400, "multipart", "The multipart body is damaged: it ends before its last boundary.")
        found = []
        for _, value in form.multi_items():
            if isinstance(value, UploadFile):
                data = await value.read()
                if value.filename or data:  # a form whose file was not chosen sends neither
                    found.append(Upload(value.filename or "", data))
                await value.close()
        return found


def _mb(size: int) -> str:
    return f"{size / MB:g} MB"
