"""Files in one move, locks and ledgers, with real processes that are killed."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf import files
from imgclf.errors import UserError


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts a Python program and returns once it has printed its first line."""
    command = [sys.executable, "-c", f"import sys, time; from pathlib import Path; from imgclf import files\n{code}", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "there"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


HALF_A_FILE = """
with files.replacing(sys.argv[1]) as aside:
    aside.write_text("half of the ne")
    print("there", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_while_it_writes_leaves_the_old_file_and_the_next_writes_over_its_rest(tmp_path):
    path = tmp_path / "table.csv"
    files.write_text(path, "the old contents")
    kill(start(HALF_A_FILE, path))
    assert path.read_text() == "the old contents"
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["table.csv", "table.csv.part"]
    files.write_text(path, "the new contents")
    assert path.read_text() == "the new contents"
    assert list(tmp_path.iterdir()) == [path]


HALF_A_FOLDER = """
with files.replacing_folder(sys.argv[1]) as aside:
    (aside / "weights").write_text("half of the ne")
    print("there", flush=True)
    time.sleep(60)
"""


def test_a_process_killed_while_it_fills_a_folder_leaves_the_old_one(tmp_path):
    path = tmp_path / "model"
    with files.replacing_folder(path) as aside:
        (aside / "weights").write_text("old")
    kill(start(HALF_A_FOLDER, path))
    assert (path / "weights").read_text() == "old"
    with files.replacing_folder(path) as aside:
        assert not list(aside.iterdir())
        (aside / "about").write_text("new")
    assert [one.name for one in path.iterdir()] == ["about"]
    assert not list(tmp_path.glob(".model.*.old"))


@pytest.mark.parametrize("writer", [files.replacing, files.replacing_folder])
def test_a_block_that_fails_changes_nothing(writer, tmp_path):
    path = tmp_path / "thing"

    def fail() -> None:
        with writer(path) as aside:
            (aside / "half" if aside.is_dir() else aside).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not list(tmp_path.iterdir())
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert [one.name for one in tmp_path.rglob("*")] == ["thing", "kept"]


def test_a_folder_that_can_not_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "model"
    path.mkdir()
    (path / "kept").touch()
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"), files.replacing_folder(path):
        pass
    assert [one.name for one in tmp_path.rglob("*")] == ["model", "kept"]


def test_shared_files_have_parts_of_their_own(tmp_path):
    with files.replacing(tmp_path / "cache", shared=True, durable=True) as aside:
        aside.write_text("mine")
        with files.replacing(tmp_path / "cache") as other:
            assert other != aside
            other.write_text("another process's")
    assert (tmp_path / "cache").read_text() == "mine"


def test_names_that_are_no_text_are_escaped(tmp_path):
    files.write_text(tmp_path / "names", "a\udcff")
    assert (tmp_path / "names").read_text() == "a\\udcff"
    files.write_json(tmp_path / "names.json", {"é": 1})
    assert (tmp_path / "names.json").read_text(encoding="utf-8") == '{\n  "é": 1\n}\n'


HOLDER = """
with files.locked(sys.argv[1], "taken"):
    print("there", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_two_processes_and_one_lock(tmp_path):
    path = tmp_path / ".lock"
    process = start(HOLDER, path, 0.5)
    with pytest.raises(UserError, match="wait for the other"), files.locked(path, "wait for the other"):
        pass
    begun = time.monotonic()
    with files.locked(path, "wait for the other", wait=-1):
        assert time.monotonic() - begun < 30
    assert process.wait(10) == 0


def test_the_lock_of_a_killed_process_is_free_though_its_file_is_there(tmp_path):
    path = tmp_path / ".lock"
    kill(start(HOLDER, path, 60))
    assert path.exists()
    with files.locked(path, "taken"):
        pass
    path.write_text("12345\nanother-machine\n")  # whatever it holds: only an open file locks
    with files.locked(path, "taken"):
        pass


def test_threads_keep_each_other_out(tmp_path):
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with files.locked(tmp_path / ".lock", "taken"):
            held.set()
            done.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with pytest.raises(UserError, match="taken"), files.locked(tmp_path / ".lock", "taken", wait=0.1):
        pass
    done.set()
    thread.join()


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none())), st.integers(0, 40))
def test_json_lines_come_back_but_for_the_last_one_cut_short(tmp_path_factory, entries, lost):
    path = tmp_path_factory.mktemp("lines") / "lines"
    lines = files.JsonLines(path)
    for entry in entries:
        lines.append(entry)
    lines.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - lost] if lost else whole)
    left = [json.loads(line) for line in path.read_bytes().split(b"\n") if _is_json(line)]
    lines = files.JsonLines(path)
    lines.append({"after": 1})
    lines.close()
    assert list(files.read_json_lines(path)) == [*left, {"after": 1}]


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def test_a_full_disk_is_an_error(tmp_path):
    (tmp_path / "lines").symlink_to("/dev/full")
    lines = files.JsonLines(tmp_path / "lines")
    with pytest.raises(OSError, match="No space left"):
        lines.append({"a": 1})


def test_the_cache_folder(monkeypatch, tmp_path):
    for name in ("IMGCLF_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert files.cache_dir() == Path.home() / ".cache" / "imgclf"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "imgclf"
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path / "own"))
    assert files.cache_dir() == tmp_path / "own"


@pytest.mark.parametrize("value", [None, 3, ["a"], object()])
def test_what_is_no_path_is_told(value):
    with pytest.raises(UserError, match=r"A value of type \w+ stands where the folder of a run is needed"):
        files.path_of(value, "the folder of a run")


def test_paths_are_taken_as_people_give_them():
    assert [files.path_of(value, "x") for value in ("a/b", b"a/b", Path("a/b"))] == [Path("a/b")] * 3
    assert files.path_of("~/a", "x") == Path.home() / "a"
