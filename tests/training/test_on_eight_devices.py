"""What a step makes 8 devices wait for; see on_eight_devices.py."""

import json

import on_eight_devices
import pytest
import warm_start


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("eight") / "told.json"
    code, said = warm_start.finish(*warm_start.start(on_eight_devices.main, out))
    assert code == 0, said
    return json.loads(out.read_text())


def test_no_batch_norm_waits_for_other_devices_where_its_groups_lie_on_one(told):
    assert told["collectives"]["0"] >= 4  # at least one for each layer, there and back
    assert told["collectives"]["2"] == 1  # of gradients and running statistics together, when all is done
