"""A study of the built-in digits: run, stopped and continued, compared, refused."""

import json

import numpy as np
import pandas as pd
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import config as config_lib
from imgclf.data import pipeline
from imgclf.data.splits import assign_splits
from imgclf.data.table import load_dataset
from imgclf.errors import UserError
from imgclf.studies import run, spec
from imgclf.studies import summary as summary_lib
from imgclf.studies.spec import Study

QUIET = Console(quiet=True)
FEW = {"train.duration": "24 steps", "train.ema": 0.0, "train.eval_every": "12 steps", "train.checkpoint_every": "100%"}


def small(**changes) -> Study:
    arms = {"base": {}, "still": {"optimizer.learning_rate": 1e-9}}
    return Study(**({"base": digits_config(**FEW), "arms": arms, "seeds": 2, "question": "Which learning rate?"} | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir, run.run(small(), workdir, console=QUIET)


def test_arms_are_compared_over_the_same_images(finished):
    workdir, summary = finished
    assert summary == json.loads((workdir / "study.json").read_text())
    assert {row["images"] for row in summary["arms"].values()} == {269}
    assert summary["arms"]["base"]["seeds"] == 2
    still = summary["comparisons"]["still"]  # an arm that learns nothing is worse, beyond doubt
    assert still["difference"] < -0.08
    assert not still["tie"]
    assert still["difference_ci95"][1] < 0
    page = (workdir / "study.html").read_text()
    assert "Which learning rate?" in page
    assert page.count('<tr><th scope="row" class="name">still</th>') >= 2
    assert "val top-1: mean of the runs" in page


def test_the_best_arm_is_ready_to_run(finished):
    workdir, summary = finished
    assert summary["best"] == summary["best"] | {"arm": "base", "top": "base", "tied": ["base"]}
    assert summary["best"]["command"] == f"imgclf train {workdir}/best.json"
    assert summary["arms"]["base"]["images_per_second"] > 0
    assert summary["arms"]["base"]["train_flops"] == summary["arms"]["still"]["train_flops"] > 0  # equal networks, whoever compiled first
    config = config_lib.from_json((workdir / "best.json").read_text())
    assert not config_lib.changes(config, small().base)


def test_what_is_done_is_found_again_and_a_failed_arm_is_reported_while_others_go_on(finished, monkeypatch):
    workdir, summary = finished
    ran = []
    real = run._run_one
    monkeypatch.setattr(run, "_run_one", lambda one, *where: ran.append((one.arm, one.seed)) or real(one, *where))
    assert run.run(small(), workdir, console=QUIET) == summary
    assert ran == []
    arms = {"renamed": {}, "new": {"data.image_size": (1, 1)}}  # one that is refused once the model is built
    more = run.run(small(arms=arms), workdir, console=QUIET)
    assert ran == [("new", 0), ("new", 1)]
    assert list(more["arms"]) == ["renamed"]
    assert more["arms"]["renamed"]["top1"] == summary["arms"]["base"]["top1"]
    assert [failure["arm"] for failure in more["failures"]] == ["new", "new"]
    assert "too small" in more["failures"][0]["error"]


def test_reports_of_runs_explain_nothing_unless_an_arm_asks_for_it():
    arms = {"base": {}, "explained": {"eval.explain": 5, "optimizer.learning_rate": 0.1}}
    assert {(one.arm, one.config.eval.explain) for one in spec.runs(small(arms=arms))} == {("base", 0), ("explained", 5)}
    alike = {"base": {}, "explained": {"eval.explain": 5}}
    with pytest.raises(UserError, match="have the same config"):  # what is shown makes no other result
        spec.runs(small(arms=alike))


def test_arms_of_a_seed_share_splits_and_folds_cover_every_image_once():
    listed = spec.runs(small(folds=3))
    assert len(listed) == 2 * 3 * 2
    assert {(one.config.seed, one.config.data.split.seed, one.config.data.split.fold) for one in listed if one.arm == "still"} == {
        (seed, seed, fold) for seed in range(2) for fold in range(3)
    }
    assert len({one.key for one in listed}) == len(listed)


def test_arms_of_a_seed_see_the_same_images_in_the_same_order_under_the_same_draws():
    arms = {
        "base": {},
        "other network": {"model.cnn.widths": (4, 4), "optimizer.name": "sgd", "train.label_smoothing": 0.1},
        "also flips": {"augment.flip": 1.0},
    }
    seen = {}
    for one in spec.runs(small(arms=arms)):
        dataset = assign_splits(load_dataset(one.config), one.config)
        with pipeline.train_batches(dataset, one.config, start_step=18, num_steps=3) as batches:  # across the end of an epoch
            seen[one.arm, one.seed] = list(batches)
    for seed in range(2):
        for base, other, flipped in zip(*(seen[arm, seed] for arm in arms), strict=True):
            assert all(np.array_equal(base[name], other[name]) for name in base)
            assert np.array_equal(base["index"], flipped["index"])
            assert np.abs(flipped["image"][:, :, ::-1].astype(int) - base["image"]).max() <= 1  # the same rotations and shifts
    assert not np.array_equal(seen["base", 0][0]["index"], seen["base", 1][0]["index"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"base": {}, "typo": {"optimizer.learning_rat": 1.0}}}, "no config field 'optimizer.learning_rat'.*learning_rate"),
        (
            {"arms": {"base": {}, "wrong": {"optimizer.learning_rate": "fast"}}},
            "arm 'wrong': config.optimizer.learning_rate='fast' has the wrong type",
        ),
        ({"arms": {"base": {}, "twin": {}}}, "'base' and 'twin' have the same config"),
        ({"arms": [("base", {}), ("base", {"seed": 1})]}, "two arms with the name 'base'"),
        ({"arms": {}}, "no arms"),
        ({"baseline": "bas"}, "baseline 'bas' is none of its arms.*'base'"),
        ({"folds": 1}, "0, 2 or more folds"),
        ({"seeds": 1}, "on one seed.*seeds=2"),
    ],
)
def test_slips_are_refused_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=message):
        spec.runs(small(**changes))


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({"data.source": "folder", "data.path": "photos"}, {}, "study of other data"),
        ({"train.duration": "30 steps"}, {}, "another base: config.train.duration was '24 steps', now '30 steps'"),
        ({}, {"question": "Which seed?", "arms": {"other": {"optimizer.learning_rate": 0.5}}}, "holds another study .'Which learning rate"),
    ],
)
def test_a_folder_of_another_study_is_refused(finished, fields, changes, message):
    workdir, _ = finished
    with pytest.raises(UserError, match=message):
        run.run(small(base=digits_config(**(FEW | fields)), **changes), workdir, console=QUIET)


def test_another_process_gives_the_same(finished, tmp_path):
    run.run(small(arms={"base": {}}, seeds=1), tmp_path, jobs=2, console=QUIET)
    timed = ["arm", "date", "train_seconds", "images_per_second"]
    ours, theirs = (pd.read_csv(folder / "study.csv").drop(columns=timed) for folder in (tmp_path, finished[0]))
    assert ours.loc[0].equals(theirs.loc[0])


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same(finished, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    assert strip(run.run(small(), tmp_path, engine="ray", jobs=2, console=QUIET)) == strip(finished[1])
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_the_same(finished, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        assert strip(run.run(small(), tmp_path, engine="dask", jobs=2, console=QUIET)) == strip(finished[1])


def strip(summary):
    """The arms of a summary without the times and speeds."""
    return {arm: {**row, "train_seconds": None, "images_per_second": None} for arm, row in summary["arms"].items()}


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UserError, match="'slurm' is unknown"):
        run.run(small(), tmp_path, engine="slurm", console=QUIET)


def test_study_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        '"""Is it so?"""\nfrom test_study import small\n\ndef get_study(argument=""):\n    return small(question="", baseline=argument)\n'
    )
    loaded = spec.load(f"{file}:still")
    assert (loaded.question, loaded.baseline) == ("Is it so?", "still")
    with pytest.raises(UserError, match=r"no study file .*none\.py.*did you mean .*mine\.py"):
        spec.load(str(tmp_path / "none.py"))
    file.write_text("x = 1")
    with pytest.raises(UserError, match="defines no study"):
        spec.load(str(file))
    file.write_text("ARMS = {")
    with pytest.raises(UserError, match=r"mine\.py, line 1: '{' was never closed"):
        spec.load(str(file))
    file.write_text('ARMS = {\n    "flip": {"augment.flip": 0.5},\n    "flip": {"augment.flip": 1.0},\n}')
    with pytest.raises(UserError, match=r"mine\.py, line 1: 'flip' stands twice"):
        spec.load(str(file))


def answers(*shares: float, n: int = 300) -> np.ndarray:
    """bool [seeds, n]: a seed with each share of right answers; the same images are hard for all."""
    return np.arange(n) < np.array(shares)[:, None] * n


def recommended(baseline: str = "", **arms: tuple[float, float | None]) -> dict:
    """The recommendation among arms of these accuracies and costs; 0.93 and 0.92 of 300 images are a tie, 0.5 is told from both."""
    correct = {name: answers(share, share) for name, (share, _) in arms.items()}
    rows = {name: {"top1": correct[name].mean(), "train_flops": cost} for name, (_, cost) in arms.items()}
    return summary_lib.recommend(rows, correct, baseline or next(iter(arms)))


def test_the_cheapest_of_the_tied_arms_is_taken():
    best = recommended(slow=(0.93, 9e12), quick=(0.92, 3e12), bad=(0.5, 1e12))
    assert (best["arm"], best["top"], best["tied"]) == ("quick", "slow", ["slow", "quick"])
    assert best["why"].startswith("the cheapest to train of 2 arms that the images can't tell apart; 'slow' scored most (p = ")
    alone = recommended(slow=(0.93, 9e12), bad=(0.5, 1e12))
    assert (alone["arm"], alone["why"]) == ("slow", "the most accurate, told from all others by paired tests (Holm)")
    assert recommended(only=(0.93, 9e12))["why"] == "the only arm"


def test_arms_of_equal_cost_are_no_reason_to_leave_the_baseline():
    equal = {"base": (0.92, 4.00e12), "flip": (0.93, 4.02e12), "dear": (0.93, 9e12)}
    best = recommended(**equal)
    assert best["arm"] == "base"
    equals = "2 arms of equal cost that the images can't tell apart (and 1 dearer one)"
    assert best["why"].startswith(f"the baseline, as nothing speaks for another of {equals}; 'flip' scored most (p = ")
    other = recommended(baseline="bad", bad=(0.5, 4e12), **equal)  # the baseline is none of the tied: the most accurate of the cheapest
    assert other["arm"] == "flip"
    assert other["why"] == f"the most accurate of {equals}"


def test_seconds_decide_nothing():
    correct = {"base": answers(0.93, 0.93), "flip": answers(0.92, 0.92)}
    rows = {  # the baseline was first, and paid for compiling what both run
        "base": {"top1": 0.93, "train_flops": 5e9, "train_seconds": 16.0},
        "flip": {"top1": 0.92, "train_flops": 5e9, "train_seconds": 6.1},
    }
    assert summary_lib.recommend(rows, correct, "base")["arm"] == "base"
    for row in rows.values():
        row["train_flops"] = None  # not counted: the cost is not known
    assert summary_lib.recommend(rows, correct, "base")["arm"] == "base"
    assert summary_lib.recommend(rows, correct, "failed")["arm"] == "base"


def test_the_speed_of_a_run_leaves_the_start_out(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert summary_lib._images_per_second(log) is None
    lines = [
        {"step": 1, "images_per_second": 2.0},
        *({"step": step, "images_per_second": 100.0 + step} for step in range(2, 5)),
        {"val_loss": 1},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert summary_lib._images_per_second(log) == 103.0


def test_a_study_whose_data_are_not_there_says_which_argument_gives_them(tmp_path):
    file = tmp_path / "mine.py"
    text = (
        '"""Is it so?"""\nfrom imgclf.config import default_config\nfrom imgclf.studies import Study\n\n'
        'def get_study(argument=""):\n    base = default_config()\n    base.data.path = argument or "none/photos"\n'
        '    return Study(base, {"a": {}, "b": {"augment.flip": 0.5}})\n'
    )
    file.write_text(text)
    with pytest.raises(UserError, match=r"data are not there: 'none/photos'.*after a colon, .*mine\.py:DATA"):
        spec.load(str(file))
    assert spec.load(f"{file}:{tmp_path}").base.data.path == str(tmp_path)
    file.write_text(text.replace('argument=""', "").replace("argument or ", ""))
    with pytest.raises(UserError, match=r"set config\.data\.path in"):
        spec.load(str(file))
    with pytest.raises(UserError, match="takes no argument"):
        spec.load(f"{file}:{tmp_path}")
    file.write_text(text.replace('"b": {"augment.flip": 0.5}', '"b": {"model.weights": "path:none.h5"}'))
    with pytest.raises(UserError, match=r"weights are not there: 'none\.h5'"):
        spec.load(f"{file}:{tmp_path}")
    file.write_text("def get_study():\n    return {}")
    with pytest.raises(UserError, match="returns dict"):
        spec.load(str(file))
