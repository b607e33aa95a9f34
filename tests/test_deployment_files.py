"""The files in deployment/kubernetes are what Kubernetes understands, by the schemas of its own API, and fit each other."""

import re
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")


@pytest.fixture(scope="module")
def documents(root) -> list[dict]:
    return list(yaml.safe_load_all((root / "deployment" / "kubernetes" / "train.yaml").read_text()))


def test_kubernetes_understands_each_object(documents):
    version = kubernetes_validate.latest_version()
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[1]["spec"]["completion"] = documents[1]["spec"].pop("completions")
    with pytest.raises(kubernetes_validate.ValidationError, match="completion"):
        kubernetes_validate.validate(documents[1], version, strict=True)
    documents[1]["spec"]["completions"] = documents[1]["spec"].pop("completion")


def test_the_pods_find_the_first_of_them(documents):
    service, job = documents
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    command = container["args"][0]
    name = job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert pod["subdomain"] == service["metadata"]["name"]
    assert f"--coordinator={name}-0.{pod['subdomain']}:{container['ports'][0]['containerPort']} " in command
    assert f"--num-processes={job['spec']['completions']} " in command
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    assert pod["restartPolicy"] == "Never"  # which podFailurePolicy needs; the schema does not say so
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_options_of_the_files_are_those_of_the_command(root):
    known = (root / "imgclf" / "cli" / "train.py").read_text()
    for file in (Path("kubernetes/train.yaml"), Path("slurm/train.sbatch")):
        text = (root / "deployment" / file).read_text()
        [command] = re.findall(r"^[^#]*\bimgclf train (.*?--distributed.*?(?:\n.*--coordinator.*)?)$", text, re.MULTILINE | re.DOTALL)
        for option in re.findall(r"--[a-z][a-z-]+", command):
            assert f'"{option}"' in known or option in ("--workdir", "--coordinator"), option
