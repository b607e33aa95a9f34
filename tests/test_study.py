"""A study of the built-in digits: run, stopped and continued, compared, refused."""

import json

import pytest
from rich.console import Console
from training.digits_experiment import digits_config

from imgclf import study
from imgclf.errors import UserError
from imgclf.study import Study

QUIET = Console(quiet=True)


def small(**changes) -> Study:
    base = digits_config(**{"train.duration": "25 steps", "train.ema": 0.0, "train.eval_every": "25 steps"})
    arms = {"base": {}, "high": {"optimizer.learning_rate": 0.03}, "still": {"optimizer.learning_rate": 1e-9}}
    return Study(**({"base": base, "arms": arms, "baseline": "base", "seeds": 2, "question": "Which learning rate?"} | changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir, study.run(small(), workdir, console=QUIET)


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
    assert page.count('<tr><th scope="row" class="name">high</th>') >= 2


def test_a_second_run_does_nothing_and_a_new_arm_costs_only_itself(finished, monkeypatch):
    workdir, summary = finished
    ran = []
    real = study._run_one
    monkeypatch.setattr(study, "_run_one", lambda one, *where: ran.append((one.arm, one.seed)) or real(one, *where))
    assert study.run(small(), workdir, console=QUIET) == summary
    assert ran == []
    renamed = {"base": {}, "fast": {"optimizer.learning_rate": 0.03}, "new": {"optimizer.learning_rate": 0.02}}
    more = study.run(small(arms=renamed), workdir, console=QUIET)
    assert ran == [("new", 0), ("new", 1)]
    assert more["arms"]["fast"]["top1"] == summary["arms"]["high"]["top1"]


def test_a_failed_arm_is_reported_and_the_others_go_on(tmp_path):
    arms = {"base": {}, "diverges": {"optimizer.learning_rate": 1e30, "optimizer.name": "sgd"}}
    summary = study.run(small(arms=arms, seeds=1), tmp_path, console=QUIET)
    assert list(summary["arms"]) == ["base"]
    assert summary["failures"][0]["arm"] == "diverges"
    assert "not finite" in summary["failures"][0]["error"]


def test_arms_of_a_seed_share_splits_and_folds_cover_every_image_once():
    listed = study.runs(small(folds=3))
    assert len(listed) == 2 * 3 * 3
    assert {(one.config.seed, one.config.data.split.seed, one.config.data.split.fold) for one in listed if one.arm == "high"} == {
        (seed, seed, fold) for seed in range(2) for fold in range(3)
    }
    assert len({one.key for one in listed}) == len(listed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"base": {}, "typo": {"optimizer.learning_rat": 1.0}}}, "no config field 'optimizer.learning_rat'.*learning_rate"),
        ({"arms": {"base": {}, "wrong": {"optimizer.learning_rate": "fast"}}}, "arm 'wrong' sets config.optimizer.learning_rate='fast'"),
        ({"arms": {"base": {}, "twin": {}}}, "'base' and 'twin' have the same config"),
        ({"baseline": "bas"}, "baseline 'bas' is none of its arms.*'base'"),
        ({"folds": 1}, "0, 2 or more folds"),
    ],
)
def test_slips_are_refused_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=message):
        study.runs(small(**changes))


def test_a_folder_of_another_study_is_refused(finished):
    workdir, _ = finished
    other = small()
    other.base.data.path, other.base.data.source = "photos", "folder"
    with pytest.raises(UserError, match="study of other data"):
        study.run(other, workdir, console=QUIET)


def test_two_processes_give_the_same(finished, tmp_path):
    assert strip(study.run(small(), tmp_path, jobs=2, console=QUIET)) == strip(finished[1])


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same(finished, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    assert strip(study.run(small(), tmp_path, engine="ray", jobs=2, console=QUIET)) == strip(finished[1])
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_dask_cluster_of_two_workers_gives_the_same(finished, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        assert strip(study.run(small(), tmp_path, engine="dask", jobs=2, console=QUIET)) == strip(finished[1])


def strip(summary):
    """A summary without the times."""
    return {**summary, "arms": {arm: {**row, "train_seconds": None} for arm, row in summary["arms"].items()}}


def test_an_unknown_engine_is_refused(tmp_path):
    with pytest.raises(UserError, match="'slurm' is unknown"):
        study.run(small(), tmp_path, engine="slurm", console=QUIET)


def test_study_files(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        '"""Is it so?"""\nfrom test_study import small\n\ndef get_study(argument=""):\n    return small(question="", baseline=argument)\n'
    )
    loaded = study.load(f"{file}:high")
    assert (loaded.question, loaded.baseline) == ("Is it so?", "high")
    with pytest.raises(UserError, match="no study file"):
        study.load(str(tmp_path / "none.py"))
    file.write_text("x = 1")
    with pytest.raises(UserError, match="defines no get_study"):
        study.load(str(file))
