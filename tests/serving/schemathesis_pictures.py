"""What schemathesis sends as pictures: real files, from the folder in the environment variable PICTURES."""

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

PICTURES = [path.read_bytes() for path in sorted(Path(os.environ["PICTURES"]).glob("?.*"))]
for media_type in ("image/*", "image/jpeg", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, st.sampled_from(PICTURES))
schemathesis.openapi.format("binary", st.sampled_from(PICTURES))
