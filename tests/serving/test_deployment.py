"""What deployment/ holds: a container file and an application for Ray Serve."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import tomllib

import httpx
import pytest


def test_the_container_file_keeps_the_rules(root):
    """Those of hadolint that matter here, where it is not installed: a pinned base, no root at the end, no cache, arguments as lists."""
    text = (root / "deployment" / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line.strip()]
    stages = [i for i, (name, _) in enumerate(instructions) if name == "FROM"]
    last = instructions[stages[-1] :]
    for index in stages:
        image = instructions[index][1].split()[0]
        assert re.search(r":\d+\.\d+\.\d+-\w", image), f"{image} is not pinned"
    users = [rest for name, rest in last if name == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    health = next(rest for name, rest in last if name == "HEALTHCHECK")
    assert "readyz" in health
    for name, rest in [*last, *([("CMD", health.partition("CMD ")[2])])]:
        if name in ("CMD", "ENTRYPOINT"):
            assert rest.startswith("["), f"{name} is run by a shell, which does not hand SIGTERM on"
    for name, rest in instructions:
        assert name != "ADD"
        assert "pip install" not in rest or "--no-cache-dir" in rest
        if name == "COPY" and "--from" not in rest:
            assert all((root / source).exists() for source in rest.split()[:-1])
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert next(rest for name, rest in instructions if name == "ARG").removeprefix("EXTRAS=") in extras


def test_hadolint_finds_nothing(root):
    if (hadolint := shutil.which("hadolint") or shutil.which("hadolint", path=sys.prefix + "/bin")) is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(root / "deployment" / "Containerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_ray_serve_answers_as_the_classifier_does(root, color_classifier, files, monkeypatch):
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(root))
    spec = importlib.util.spec_from_file_location("ray_serve", root / "deployment" / "ray_serve.py")
    deployment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deployment)
    monkeypatch.setitem(sys.modules, "ray_serve", deployment)
    ray.cloudpickle.register_pickle_by_value(deployment)  # the file is in no package here
    classifier, _ = color_classifier
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        arguments = {"models": f"colors={classifier.folder}", "replicas": "2", "cpus": "0.5", "token": "secret"}
        serve.run(deployment.app(arguments), route_prefix="/")
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/healthz", timeout=60).text == "ok\n"
        assert httpx.post(f"{address}/predict", files={"i": files["a.jpg"]}, timeout=60).status_code == 401
        headers = {"Authorization": "Bearer secret"}
        for name, data in files.items():
            answer = httpx.post(f"{address}/models/colors/predict", files={"i": (name, data)}, headers=headers, timeout=60).json()
            expected = classifier.predict(data)["probability"][0]
            assert answer["images"][0]["probability"] == pytest.approx(expected, abs=1e-6)
    finally:
        serve.shutdown()
        ray.shutdown()
