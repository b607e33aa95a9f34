"""The page on which people drop, paste or photograph pictures."""

import base64
import functools
import hashlib
from pathlib import Path

from fastapi import Response

_FOLDER = Path(__file__).parent / "templates"


@functools.cache
def _page() -> tuple[bytes, str]:
    """The page, which needs no other file, and its policy: only its own style and script run, and it asks this server alone."""
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    text = (_FOLDER / "page.html").read_text(encoding="utf-8").replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; style-src 'sha256-{_sha256(style)}'; script-src 'sha256-{_sha256(script)}'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    return text.encode(), policy


def response() -> Response:
    """The page as it is sent."""
    text, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response(text, headers=headers, media_type="text/html; charset=utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
