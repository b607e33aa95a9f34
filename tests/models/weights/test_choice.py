"""Which weights are chosen where the user names none: with a hub, without one, and with what lies on this machine."""

import http.server

import loopback
import pytest
from huggingface_hub import constants as hub_constants

from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import choice, pretrained
from imgclf.models.weights.conversion import Weights


def entry(name: str, **figures) -> Weights:
    return Weights(f"timm/{name}", name, "timm", **({"repo": f"timm/{name}", "licence": "apache-2.0"} | figures))


ENTRIES = {
    each.name: each
    for each in (
        entry("probed", linear_probe=81.1, gmacs=4.6),
        entry("large", linear_probe=86.0, gmacs=20.0),
        entry("forbidden", linear_probe=90.0, gmacs=1.0, licence="cc-by-nc-4.0", commercial=False),
        entry("plain", top1=76.1, gmacs=4.1),
        entry("by_hand", top1=78.0, gmacs=4.3, repo="", licence="", source="https://example.org/by_hand.pth"),
        entry("unmeasured", top1=89.0),
    )
}


@pytest.fixture(autouse=True)
def published(monkeypatch, tmp_path):
    """These are all published weights; the caches are empty, and there is no network."""

    def weights(model=None):
        return {name: each for name, each in ENTRIES.items() if model in (None, each.model)}

    monkeypatch.setattr(registry, "weights", weights)
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "imgclf"))
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)


def place(tmp_path, name):
    path = tmp_path / "imgclf" / "weights" / "timm" / name / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.touch()


def test_the_best_within_the_budget_that_anyone_may_use(tmp_path):
    for each in ENTRIES.values():
        place(tmp_path, each.model)
    found = choice.choose(5.0)
    assert found.entry.model == "probed"
    assert found.why == (
        "timm/probed (4.6 GMACs, 81.1 % on ImageNet by a linear probe, licence apache-2.0): the best published fixed features within 5 "
        "GMACs whose licence allows commercial use."
    )
    assert choice.choose(30.0).entry.model == "large"
    assert choice.choose(4.2).entry.model == "plain"


def test_without_a_network_the_best_that_is_here_is_named_with_the_reason(tmp_path):
    place(tmp_path, "plain")
    found = choice.choose(5.0)
    assert found.entry.model == "plain"
    assert found.why.startswith("timm/probed can't be fetched (")
    assert found.why.endswith(
        "): timm/plain (4.1 GMACs, 76.1 % on ImageNet, licence apache-2.0) instead, the next best within 5 GMACs whose licence allows "
        "commercial use at hand."
    )
    assert choice.choose(5.0, cached_only=True).why.startswith("timm/probed is not on this machine: timm/plain (")
    place(tmp_path, "by_hand")
    assert choice.choose(5.0).entry.model == "by_hand"
    assert "no licence stated" in choice.choose(5.0).why


def test_what_costs_too_much_is_better_than_nothing(tmp_path):
    place(tmp_path, "forbidden")
    place(tmp_path, "large")
    found = choice.choose(5.0)
    assert found.entry.model == "large"
    assert "on this machine, which has none within 5 GMACs" in found.why


@pytest.mark.parametrize("cached_only", [False, True])
def test_with_nothing_at_hand_the_file_and_its_place_are_named(tmp_path, cached_only):
    place(tmp_path, "forbidden")
    with pytest.raises(UserError, match=r"timm/probed.*fetch \S+/timm/probed/resolve/main/model\.safetensors where there is") as error:
        choice.choose(5.0, cached_only=cached_only)
    assert str(tmp_path / "imgclf" / "weights" / "timm" / "probed" / "model.safetensors") in str(error.value)


def test_of_one_model_whatever_it_costs(tmp_path):
    place(tmp_path, "large")
    assert choice.choose(5.0, model="large").why.endswith("the best published fixed features of large.")
    for model in ("forbidden", "absent"):
        with pytest.raises(UserError, match=r"no published weights of .* for any use"):
            choice.choose(model=model)


class Refusing(http.server.BaseHTTPRequestHandler):
    """A hub that answers, and has nothing for us: as for files behind a form that was not filled in."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_response(401)
        self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments) -> None:
        """Not into the test's output."""


def test_where_the_hub_refuses_one_the_next_is_asked_for(monkeypatch, tmp_path):
    with loopback.running(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)) as server:
        server.asked = []
        loopback.use_hub(f"http://127.0.0.1:{server.server_port}", tmp_path / "hub", monkeypatch)
        with pytest.raises(UserError, match="timm/probed can't be fetched"):
            choice.choose(5.0)
    assert {path.split("/resolve")[0] for path in server.asked} == {"/timm/probed", "/timm/plain"}


def test_a_network_that_is_not_there_is_asked_once(monkeypatch):
    asked = []

    def fetch(entry):
        asked.append(entry.model)
        raise pretrained.FetchError("no", reason="no network", answered=False)

    monkeypatch.setattr(pretrained, "fetch", fetch)
    with pytest.raises(choice.NothingAtHand, match=r"timm/probed can't be fetched \(no network\)"):
        choice.choose(5.0)
    assert asked == ["probed"]
