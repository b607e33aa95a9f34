"""What `imgclf serve` says to mistakes, and how its process ends."""

import importlib.util
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

import imgclf.serving
from imgclf.cli import commands
from imgclf.errors import UserError
from imgclf.serving import server
from imgclf.serving.app import AppOptions
from imgclf.serving.limits import Limits
from imgclf.serving.served import names_of


def served(*arguments: str) -> None:
    CliRunner().invoke(commands.app, ["serve", *arguments], catch_exceptions=False)


def test_mistakes_are_told_before_a_model_is_read(tmp_path):
    (tmp_path / "unfinished").mkdir()
    for arguments, told in (
        (["none"], "There is no run 'none'"),
        ([f"a={tmp_path}/unfinished"], "is not a finished run"),
        ([str(tmp_path), "--engine", "torch"], "--engine=torch is unknown"),
    ):
        with pytest.raises(UserError, match=told):
            served(*arguments)


def test_a_port_in_use_and_places_that_are_none(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"The port {port} is in use"):
            imgclf.serve(tmp_path, port=port)
    for options, told in (
        ({"port": 70000}, "There is no port 70000"),
        ({"host": "no.such.host.invalid", "port": 0}, "There is no host"),
        ({"host": "192.0.2.1", "port": 0}, "can't be listened on"),
    ):
        with pytest.raises(UserError, match=told):
            imgclf.serve(tmp_path, **options)


def test_options_out_of_their_range():
    for options, told in (({"threshold": 1.5}, "threshold=1.5"), ({}, "nothing to serve")):
        with pytest.raises(UserError, match=told):
            server.build([], AppOptions(**options))
    with pytest.raises(UserError, match="max_batch=0"):
        server.build(["x"], AppOptions(), max_batch=0)
    with pytest.raises(UserError, match="queue is 0"):
        Limits(queue=0)
    with pytest.raises(UserError, match="image_bytes is 2 and request_bytes 1"):
        Limits(image_bytes=2, request_bytes=1)


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert names_of(["runs/photos", "old=runs/photos"]) == {"photos": Path("runs/photos"), "old": Path("runs/photos")}
    (tmp_path / "a=b").mkdir()
    with pytest.raises(UserError, match="'a=b' can't be a model's name in a URL"):
        names_of(["a=b"])
    assert names_of(["x=a=b"]) == {"x": Path("a=b")}
    with pytest.raises(UserError, match="Two models are called 'photos'"):
        names_of(["a/photos", "b/photos"])


def test_a_missing_extra_names_the_line_that_installs_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    with pytest.raises(UserError, match=r"imgclf serve needs uvicorn: python -m pip install 'imgclf\[serve\]'"):
        importlib.reload(imgclf.serving)
    monkeypatch.undo()
    importlib.reload(imgclf.serving)
