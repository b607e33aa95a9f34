"""Training on meshes of 8 simulated devices is training on one device, but for rounding; no device has more of the state than its part."""

import itertools
import json

import mesh_trainings
import pytest
import warm_start

SHAPES = [(1, 1), (2, 1), (8, 1), (1, 2), (1, 8), (2, 2), (4, 2), (2, 4)]  # fsdp, model


def trainings(folder, combinations) -> dict:
    code, said = warm_start.finish(*warm_start.start(mesh_trainings.main, combinations, folder), timeout=1800)
    assert code == 0, said
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict:
    return trainings(tmp_path_factory.mktemp("quick"), [("quick", 2, 2)])


def check(about: dict) -> None:
    assert about["state"] < 2e-5, about
    assert about["metrics"] < 2e-5, about
    assert about["logits"] < 2e-5, about
    assert about["still"], about  # what a step gives lies as what it takes
    if about["model"] > 1:  # neither logits nor targets, [B, C], nor the kernel, [D, C], are ever whole anywhere
        assert not [shape for shape in about["gathered"] if shape.endswith(f",{mesh_trainings.CLASSES}]")], about
    if about["fsdp"] > 1 or about["model"] > 1:
        assert about["part"] <= about["whole"] / 2, about


def test_every_option_at_once_on_a_mesh_of_all_axes_is_one_device_within_rounding(quick):
    (about,) = quick["found"]
    check(about)
    assert about["part"] < about["whole"] / 2


def test_a_checkpoint_of_eight_devices_is_read_by_one(quick):
    assert quick["sha256"][0] == quick["sha256"][1]
    assert quick["steps"] == mesh_trainings.STEPS


@pytest.mark.slow
def test_every_mesh_with_every_option_is_one_device_within_rounding(tmp_path):
    combinations = [(fields, *shape) for fields, shape in itertools.product(mesh_trainings.FIELDS, SHAPES)]
    found = trainings(tmp_path, combinations)["found"]
    assert len(found) == len(combinations)
    for about in found:
        check(about)
