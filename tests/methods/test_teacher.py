"""Distillation: what the teacher gives of each label, that a student learns from it exactly, and who can't be a teacher."""

from pathlib import Path

import jax
import numpy as np
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf import config as config_lib
from imgclf import files, models
from imgclf.config import Config
from imgclf.data.prepare import prepare
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation import results as results_lib
from imgclf.methods import choice, resolve
from imgclf.methods.base import Task
from imgclf.methods.teacher import Teacher
from imgclf.training import loop, sharding
from imgclf.training.trained_model import TrainedModel

QUIET = Console(quiet=True)
STUDENT = {"train.duration": "6 steps", "train.eval_every": "3 steps", "train.checkpoint_every": "2 steps"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return prepare(resolve.check(digits_config())).dataset


def resolved(**changes) -> Config:
    return resolve.resolve(resolve.check(digits_config(**changes)), 10)


def trained(config: Config, dataset: Dataset, folder: Path) -> TrainedModel:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return choice.check(Task(config, dataset, models.create(config, 10), sharding.create_mesh(), QUIET)).train(folder)


@pytest.fixture(scope="module")
def teacher(digits, tmp_path_factory) -> tuple[Path, TrainedModel, dict]:
    """A probe on another network's features, as a finished run."""
    folder = tmp_path_factory.mktemp("teacher")
    config = resolved(**{"train.method": "probe", "model.cnn.widths": (12,), "model.head.kind": "linear", "probe.l2": (0.01,), "seed": 5})
    probe = trained(config, digits, folder)
    results, _ = results_lib.score(config, digits, probe, {"dropped": []})
    files.write_text(folder / "config.json", config_lib.to_json(config))
    files.write_json(folder / "results.json", results)
    return folder, probe, results


def test_its_part_of_each_label_is_its_share_of_its_calibrated_probabilities(teacher, digits):
    folder, probe, results = teacher
    loaded = Teacher.of(resolved(**{"train.teacher": str(folder), "train.teacher_share": 0.3}), digits.class_names)
    targets = loaded.targets(digits, QUIET)
    rows, logits = probe.logits_of("train")
    np.testing.assert_allclose(targets[rows], 0.3 * jax.nn.softmax(logits / results["temperature"]), atol=1e-6)
    assert results["temperature"] != 1
    others = np.setdiff1d(np.arange(len(targets)), rows)
    assert len(others)
    assert not targets[others].any()


def test_a_student_learns_from_it_and_resumes_exactly(teacher, digits, tmp_path, monkeypatch):
    config = resolved(**STUDENT, **{"train.teacher": str(teacher[0]), "train.teacher_share": 0.9})
    straight = trained(config, digits, tmp_path / "straight")
    assert straight.results["teacher"]["params_sha256"] == teacher[2]["params_sha256"]
    assert straight.about["params_sha256"] != trained(resolved(**STUDENT), digits, tmp_path / "alone").about["params_sha256"]
    stopping = iter([False, False, True, False, False, False])
    with monkeypatch.context() as patched:
        patched.setattr(loop.StopRequest, "signum", lambda self, step, checkpoints: 15 * next(stopping))
        with pytest.raises(loop.Interrupted):
            trained(config, digits, tmp_path / "stopped")
    assert trained(config, digits, tmp_path / "stopped").about["params_sha256"] == straight.about["params_sha256"]


@pytest.mark.slow
def test_without_a_share_the_teacher_changes_nothing(teacher, digits, tmp_path):
    config = resolved(**STUDENT, **{"train.teacher": str(teacher[0]), "train.teacher_share": 0.0})
    silent, alone = trained(config, digits, tmp_path / "silent"), trained(resolved(**STUDENT), digits, tmp_path / "alone")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), silent.params, alone.params)


def test_who_cannot_teach_is_told(teacher, digits, tmp_path):
    folder = teacher[0]
    with pytest.raises(UserError, match=r"config\.train\.teacher='nowhere' is no finished run"):
        Teacher.of(resolved(**{"train.teacher": "nowhere"}), digits.class_names)
    asked = resolved(**{"train.teacher": str(folder)})
    with pytest.raises(UserError, match=r"other classes \(0, 1, 2, 3, 4, …\); a teacher needs the same"):
        Teacher.of(asked, digits.class_names[:9])
    other = tmp_path / "mlp"
    other.mkdir()
    files.write_json(other / "results.json", teacher[2])
    config = config_lib.from_json((folder / "config.json").read_text())
    config.model.head.kind = "mlp"
    files.write_text(other / "config.json", config_lib.to_json(config))
    with pytest.raises(UserError, match="a teacher needs one on averaged features, 'linear' or 'norm'"):
        Teacher.of(resolved(**{"train.teacher": str(other)}), digits.class_names)
