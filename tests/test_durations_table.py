"""The table of what test files take."""

import json
from pathlib import Path

import durations

pytest_plugins = ["pytester"]


def test_files_that_take_clearly_longer_are_named_the_worst_first():
    before = {"same": 100.0, "half as much again": 100.0, "slower": 10.0, "short": 0.5}
    now = {"same": 140.0, "half as much again": 151.0, "slower": 30.0, "short": 5.0, "new": 6.0, "new and short": 4.0}
    assert durations.grown(before, now) == ["half as much again", "slower", "new"]


def test_files_that_are_gone_leave_the_table(tmp_path):
    (tmp_path / "test_a.py").touch()
    (tmp_path / "test_b.py").touch()
    before = {"test_gone.py": 3.0, "test_b.py": 2.0, "test_a.py": 1.0}
    assert list(durations.merged(before, {"test_a.py": 4.06}, tmp_path).items()) == [("test_a.py", 4.1), ("test_b.py", 2.0)]


def test_cpu_time_of_workers_and_their_children_is_summed_by_file(pytester):
    busy = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
    pytester.makepyfile(
        **{
            "tests/durations": Path(durations.__file__).read_text(),
            "tests/conftest": "pytest_plugins = ['durations']",
            "tests/test_busy": f"def test(): exec({busy!r})\ndef test_again(): exec({busy!r})",
            "tests/test_child": f"import subprocess, sys\ndef test(): subprocess.run([sys.executable, '-c', {busy!r}], check=True)",
            "tests/test_sleep": "import time\ndef test(): time.sleep(0.3)",
        }
    )
    done = pytester.runpytest_subprocess("-n", "2", "--dist", "loadfile", "--durations-update", "tests")
    done.assert_outcomes(passed=4)
    seconds = json.loads((pytester.path / "tests" / "durations.json").read_text())
    assert 0.6 <= seconds["tests/test_busy.py"] < 3
    assert 0.3 <= seconds["tests/test_child.py"] < 3
    assert seconds["tests/test_sleep.py"] < 0.3
