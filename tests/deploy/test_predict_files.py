"""`imgclf predict`: equal to the run's evaluation, in order, continued after kill -9, and nothing overwritten."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

import imgclf
from imgclf import cli, files, formatting
from imgclf.deploy import inputs, predict_files
from imgclf.deploy.options import Options

BATCH = 8  # that of the run's evaluation
RANKED = ["predicted", "probability", *(f"top{k}{kind}" for k in (1, 2, 3) for kind in ("", "_probability"))]


def texts(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def command(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["imgclf", "predict", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


@pytest.fixture(scope="module")
def classifier(finished):
    return imgclf.load(finished[0])


def write(classifier, images, out, **changes):
    options = Options(**({"batch_size": BATCH} | changes))
    return predict_files.predict_files(classifier, images, out, options, Console(quiet=True))


def test_the_answers_for_a_few_images_are_printed(finished, photo_folder, tmp_path, monkeypatch, capsys):
    good, bad = sorted(photo_folder.rglob("*.png"))[0], tmp_path / "bad\n.png"
    bad.write_bytes(b"no picture")
    assert command(monkeypatch, finished[0], good, bad, "--out", tmp_path / "two.csv", "--threshold", "0.9999999") == 0
    first, second, last = capsys.readouterr().out.splitlines()
    (row, _) = texts(tmp_path / "two.csv").to_dict("records")
    assert first == f"{row['id']}: {row['predicted']}, {formatting.percent(float(row['probability']))}; unknown"
    assert second.startswith(f"{str(bad)[:-5]}?.png: no answer, not an image")
    assert last.startswith("2 rows in")
    assert command(monkeypatch, finished[0], bad, "--out", tmp_path / "one.parquet") == 1
    assert "1 image could not be read" in capsys.readouterr().out


def test_a_class_called_0_and_a_column_of_the_list_are_told_as_they_are(tmp_path):
    out = tmp_path / "digits.csv"
    out.write_text("id,predicted,probability,reason,answer\n1.png,0,0.75,,of the list\n2.png,,,no_image,\n")
    assert predict_files.answers(out, Options()) == [f"1.png: 0, {formatting.percent(0.75)}", "2.png: no answer, no image"]


def test_a_folder_is_predicted_as_the_run_was_evaluated(finished, photo_folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "predictions.csv"
    assert command(monkeypatch, finished[0], photo_folder, "--out", out) == 0
    assert f"36 rows in {out}" in capsys.readouterr().out
    table = texts(out)
    assert table["id"].tolist() == sorted(f"{path.parent.name}/{path.name}" for path in photo_folder.rglob("*.*"))
    assert set(table["reason"]) == {""}
    run = texts(finished[0] / "predictions.csv")
    mine = table.set_index("id").loc[run["id"]].reset_index()
    pd.testing.assert_frame_equal(mine[["id", *RANKED]], run[["id", *RANKED]])  # to the last digit
    assert list(table.columns) == ["id", *RANKED, "reason"]
    assert sorted(path.name for path in out.parent.iterdir()) == ["predictions.csv", "predictions.csv.json"]


def test_what_can_not_be_read_has_a_row_with_the_reason(classifier, photo_folder, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(photo_folder / "red", folder / "a")
    whole = (folder / "a" / "7.jpg").read_bytes()
    (folder / "a" / "7.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "note.jpg").write_text("not a picture")
    (folder / "drawing.svg").write_text("<svg/>")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / ".hidden").touch()
    (folder / "Thumbs.db").touch()
    (folder / "list.txt").touch()
    found = inputs.find([str(folder)])
    assert dict(found.ignored) == {"hidden file": 1, "Thumbs.db": 1, ".txt": 1}
    done = write(classifier, found, tmp_path / "out.csv")
    table = texts(tmp_path / "out.csv").set_index("id")
    bad = table[table["reason"] != ""]
    assert {name: reason.split(":")[0] for name, reason in bad["reason"].items()} == {
        "a/7.jpg": "truncated", "empty.png": "empty", "note.jpg": "not_an_image", "drawing.svg": "unsupported", "broken.jpg": "missing",
    }  # fmt: skip
    assert (bad.drop(columns="reason") == "").all(axis=None)
    assert list(table.index) == sorted(table.index)
    assert (table.loc[table["reason"] == "", "predicted"] != "").sum() == 11 == done.predicted
    assert done.reasons == {"truncated": 1, "empty": 1, "not_an_image": 1, "unsupported": 1, "missing": 1}
    told = predict_files.describe(done, found.ignored, tmp_path / "out.csv")
    assert "16 rows in" in told
    assert "5 images could not be read (" in told
    assert "Ignored 1 .txt, 1 Thumbs.db, 1 hidden file." in told


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_list_keeps_its_order_its_ids_and_its_other_columns(classifier, photo_folder, tmp_path, suffix):
    rows = [("red/7.jpg", "x1"), ("blue/1.png", "007"), ("nowhere.jpg", "NA"), ("red/7.jpg", "x1"), ("green/2.png", "é,")]
    table = pd.DataFrame({"file": [row[0] for row in rows], "id": [row[1] for row in rows], "reason": list("abcde"), "size": range(5)})
    file = tmp_path / f"test{suffix}"
    if suffix == ".parquet":
        table.assign(boxes=[[1, 2]] * 5).to_parquet(file)  # what a CSV can't hold is left out
    else:
        table.to_csv(file, index=False, sep="\t" if suffix == ".tsv" else ",")
    found = inputs.find([str(file)], column="file", root=str(photo_folder))
    write(classifier, found, tmp_path / "out.parquet", top_k=2, conformal=True)
    write(classifier, found, tmp_path / "out.csv", top_k=2, conformal=True)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["id"].tolist() == [row[1] for row in rows]
    assert list(out.columns)[:3] == ["id", "predicted", "probability"]
    assert list(out.columns)[6:] == ["top2_probability", "set", "reason", "file", "list_reason", "size"]
    assert out["file"].tolist() == table["file"].tolist()
    assert out["list_reason"].tolist() == list("abcde")
    assert out["size"].tolist() == (list(range(5)) if suffix == ".parquet" else list("01234"))
    assert out["reason"].tolist() == ["", "", "missing: no such file", "", ""]
    assert out["probability"].dtype == np.float32
    assert pd.isna(out["predicted"].iloc[2])
    assert out["set"].iloc[2] is None
    assert out["probability"].iloc[0] == out["probability"].iloc[3]
    direct = classifier.predict([photo_folder / row[0] for row in rows if row[0] != "nowhere.jpg"], batch_size=BATCH)
    assert out["predicted"].drop(2).tolist() == direct["predicted"].tolist()
    csv = texts(tmp_path / "out.csv")
    assert csv["id"].tolist() == out["id"].tolist()
    assert [json.loads(names) for names in csv["set"].drop(2)] == [list(names) for names in out["set"].drop(2)]
    assert (csv.loc[2, ["predicted", "probability", "top1", "top2", "set"]] == "").all()


def test_a_text_list_and_several_folders(classifier, photo_folder, tmp_path):
    (tmp_path / "list.txt").write_text(f"{photo_folder}/red/1.png\n\n{photo_folder}/blue/1.png\n")
    assert inputs.find([str(tmp_path / "list.txt")]).ids == [f"{photo_folder}/red/1.png", f"{photo_folder}/blue/1.png"]
    both = inputs.find([str(photo_folder / "red"), str(photo_folder / "blue" / "1.png")])
    assert len(both) == 13
    assert both.ids[0] == f"{photo_folder}/red/0.png"
    assert both.ids[-1] == f"{photo_folder}/blue/1.png"


SLOWLY = """
import sys, time
from pathlib import Path
from rich.console import Console
import imgclf
from imgclf.data import images
from imgclf.deploy import inputs, predict_files
from imgclf.deploy.options import Options
decode = images.decode
images.decode = lambda *a, **k: (time.sleep(0.02), decode(*a, **k))[1]
run, folder, out = sys.argv[1:]
predict_files.predict_files(
    imgclf.load(run), inputs.find([folder]), Path(out), Options(batch_size=8), Console(quiet=True), part_rows=16
)
"""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_killed_and_continued_the_result_is_the_same_to_the_byte(finished, classifier, photo_folder, tmp_path, suffix):
    folder = tmp_path / "many"
    for i in range(20):
        shutil.copytree(photo_folder / ("red", "green", "blue")[i % 3], folder / f"{i:02d}")
    (folder / "03" / "2.png").write_text("no picture")
    straight, out = tmp_path / f"straight{suffix}", tmp_path / f"killed{suffix}"
    found = inputs.find([str(folder)])
    assert len(found) == 240
    assert write(classifier, found, straight).before == 0

    parts = tmp_path / f"killed{suffix}.part"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(finished[0]), str(folder), str(out)], env=os.environ)
    deadline = time.monotonic() + 120
    while len(list(parts.glob("*.parquet"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    kept = len(list(parts.glob("*.parquet")))
    assert kept >= 3
    damaged = sorted(parts.glob("*.parquet"))[-1]  # as after a loss of power
    damaged.write_bytes(damaged.read_bytes()[:100])

    done = write(classifier, found, out)
    assert done.before == 16 * (kept - 1)
    assert done.predicted == 239
    assert out.read_bytes() == straight.read_bytes()
    assert not parts.exists()
    again = write(classifier, found, out)  # nothing is left to do
    assert (again.before, again.predicted, again.seconds) == (240, 239, 0.0)
    if suffix == ".parquet":
        assert pq.read_schema(out).equals(pq.read_schema(straight))


def test_nothing_of_others_is_overwritten(classifier, photo_folder, tmp_path):
    images, out = inputs.find([str(photo_folder / "red")]), tmp_path / "out.csv"
    console, options = Console(quiet=True), Options(batch_size=BATCH)
    out.write_text("mine\n")
    with pytest.raises(imgclf.UserError, match=r"not known to be of this command.*overwrite=True"):
        write(classifier, images, out)
    assert out.read_text() == "mine\n"
    predict_files.predict_files(classifier, images, out, options, console, overwrite=True)
    before = out.read_bytes()

    cases = [
        (classifier, inputs.find([str(photo_folder / "blue")]), {}, "other images"),
        (classifier, images, {"top_k": 1}, "other options .top_k=5.*overwrite=True"),
        (dataclasses.replace(classifier, temperature=9.0), images, {}, "another run"),
    ]
    for predictor, given, changes, message in cases:
        with pytest.raises(imgclf.UserError, match=message):
            write(predictor, given, out, **changes)
        assert out.read_bytes() == before

    out.write_bytes(before + b"a row of mine\n")
    with pytest.raises(imgclf.UserError, match="was changed after"):
        write(classifier, images, out)

    parts = tmp_path / "begun.csv.part"
    parts.mkdir()
    (parts / "about.json").write_text(json.dumps({"model": "another", "images": {}, "options": {}}))
    (parts / "000000000000.parquet").write_bytes(b"theirs")
    with pytest.raises(imgclf.UserError, match=r"begun with another run.*overwrite=True"):
        write(classifier, images, tmp_path / "begun.csv")
    assert (parts / "000000000000.parquet").read_bytes() == b"theirs"
    predict_files.predict_files(classifier, images, tmp_path / "begun.csv", options, console, overwrite=True)
    assert (tmp_path / "begun.csv").read_bytes() == before


def test_two_processes_do_not_write_the_same(classifier, photo_folder, tmp_path):
    images, out = inputs.find([str(photo_folder / "red")]), tmp_path / "out.csv"
    (tmp_path / "out.csv.part").mkdir()
    with files.locked(tmp_path / "out.csv.part" / ".lock", "taken"), pytest.raises(imgclf.UserError, match="Another process is writing"):
        write(classifier, images, out)


def test_changed_images_are_other_images(classifier, photo_folder, tmp_path):
    shutil.copytree(photo_folder / "red", tmp_path / "red")
    write(classifier, inputs.find([str(tmp_path / "red")]), tmp_path / "out.csv")
    Image.new("RGB", (9, 9)).save(tmp_path / "red" / "3.png")
    with pytest.raises(imgclf.UserError, match=r"other images .12, now 12, or with other contents"):
        write(classifier, inputs.find([str(tmp_path / "red")]), tmp_path / "out.csv")


def test_mistakes_are_one_sentence_and_exit_code_2(finished, photo_folder, tmp_path, monkeypatch, capsys):
    run, image = finished[0], photo_folder / "red" / "1.png"
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "notes.txt").touch()
    (tmp_path / "names.csv").write_text("file,label\na.jpg,1\n")
    (tmp_path / "absent.csv").write_text("path\na.jpg\n")
    (tmp_path / "none.csv").write_text("path\n")
    out = tmp_path / "out.csv"
    cases = [
        ((tmp_path, image), "not a finished run"),
        ((run, tmp_path / "nowhere"), "does not exist"),
        ((run, tmp_path / "nothing"), "holds no image (ignored: 1 .txt)"),
        ((run, tmp_path / "names.csv"), "no column 'path': set --column to one of its columns ('file', 'label')"),
        ((run, tmp_path / "absent.csv"), "None of the 1 images"),
        ((run, tmp_path / "none.csv"), "has no rows"),
        ((run, tmp_path / "names.csv", image), "give one list"),
        ((run, tmp_path / "names.csv", "--column", "file", "--root", tmp_path / "nowhere"), "is no folder"),
        ((run, image, "--out", tmp_path / "out.xlsx"), "must end in .csv or .parquet"),
        ((run, image, "--threshold", "80"), "did you mean 0.8?"),
        ((run, image, "--top-k", "0"), "--top-k=0 is no whole number of at least 1"),
        ((run, image, "--batch", "-3"), "--batch=-3 is no whole number"),
    ]
    for arguments, message in cases:
        arguments = (*arguments, "--out", out) if "--out" not in arguments else arguments
        assert command(monkeypatch, *arguments) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("Error: ")
        assert told.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absent.csv", "names.csv", "none.csv", "nothing"]
