"""What the processes of a training hand each other, and that they end together; with two real ones."""

import json
from pathlib import Path

import hosts_talking
import numpy as np
import several_hosts
import warm_start

from imgclf.runtime import hosts


def test_a_process_alone_waits_for_nobody():
    alone = hosts.Hosts()
    assert alone.gather(b"x") == [b"x"]
    assert alone.broadcast(b"x") == b"x"
    assert alone.any_of(np.array([True, False])).tolist() == [True, False]
    assert alone.share(np.arange(3)).tolist() == [0, 1, 2]
    alone.check_same_rows(["a"], "images")


def test_two_processes_hand_over_and_end_together(tmp_path):
    coordinator = several_hosts.coordinator()
    files = [str(tmp_path / f"{k}.json") for k in range(2)]
    started = [warm_start.start(hosts_talking.main, coordinator, k, files[k]) for k in range(2)]
    ended = [warm_start.finish(*one, 60) for one in started]
    for k, file in enumerate(files):
        said = json.loads(Path(file).read_text())
        assert said["gathered"] == [0, 9 << 20]
        assert said["broadcast"] == "0"
        assert said["tables"] == [["of 0"], ["of 1", "of 1"]]
        assert np.flatnonzero(said["any"]).tolist() == [0, 3, 4, 6, 8, 9]
        assert said["share"] == [[0, 2, 4], [1, 3]][k]
        assert "do not have the same images: process 0 has 1, process 1 has 2, and they differ in b, for one" in said["different"]
    assert ended[1] == (2, "Error: The disk of this host is gone.\n")
    code, told = ended[0]
    assert code == 2
    assert "Process 1 of 2 has ended, and so this one does: The disk of this host is gone." in told


def test_sigterm_is_answered_where_nobody_trains():
    coordinator = several_hosts.coordinator()
    started = [warm_start.start(hosts_talking.terminated, coordinator, k) for k in range(2)]
    for code, told in [warm_start.finish(*one, 60) for one in started]:
        assert code == 143, told
        assert "there was nothing to save" in told or "has ended, and so this one does: it was asked to stop (SIGTERM)" in told
