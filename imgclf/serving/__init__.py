"""A classifier behind HTTP: the server, its queue, its page."""

import importlib.util

from imgclf.errors import missing_extra

for _module, _package in (
    ("fastapi", "fastapi"),
    ("uvicorn", "uvicorn"),
    ("prometheus_client",) * 2,
    ("python_multipart", "python-multipart"),
):
    if importlib.util.find_spec(_module) is None:
        raise missing_extra("imgclf serve", _package, "serve")
