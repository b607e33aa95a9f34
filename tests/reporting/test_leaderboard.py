"""What was tried within a time limit, read from a run."""

import json

import pytest

from imgclf.errors import UserError
from imgclf.reporting import leaderboard

ROW = dict.fromkeys(leaderboard.COLUMNS) | {"name": "probe", "kept": True, "decision": "kept"}


def test_a_damaged_file_is_told(tmp_path):
    assert leaderboard.read(tmp_path) is None
    path = tmp_path / leaderboard.FILE
    whole = {"rows": [ROW], "time_limit": 60, "seconds": 5}
    path.write_text(json.dumps(whole))
    assert leaderboard.read(tmp_path)["name"].tolist() == ["probe"]
    for damaged in ("{", "[]", "{}", json.dumps(whole | {"rows": [{"name": "probe"}]}), json.dumps({"rows": [ROW]})):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"leaderboard\.json is damaged"):
            leaderboard.section(tmp_path)
