"""A server of the Hugging Face hub's protocol for what is published there."""

import hub_server
import loopback
import pytest
from huggingface_hub import constants as hub_constants


@pytest.fixture
def server(monkeypatch, tmp_path):
    with loopback.running(hub_server.Hub()) as server:
        loopback.use_hub(server.url, tmp_path / "hub", monkeypatch)
        monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        yield server
