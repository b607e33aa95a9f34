"""The greedy soup, by itself and in a run."""

import json

import numpy as np
import pytest
from digits_experiment import digits_config
from rich.console import Console

from imgclf.errors import UserError
from imgclf.training import best, soup
from imgclf.training.checkpoint import load_model
from imgclf.workflows import train


def scalar_soup(values: dict[str, float], target: float, lower_is_better: bool = True) -> soup.Soup:
    def load(name):
        return {"w": np.float32([values[name]])}, {"mean": np.float32([10 * values[name]])}

    def value_of(params, batch_stats):
        assert params["w"].dtype == np.float32
        np.testing.assert_allclose(batch_stats["mean"], 10 * params["w"], rtol=1e-6)
        distance = abs(float(params["w"][0]) - target)
        return distance if lower_is_better else -distance

    return soup.greedy(list(values), load, value_of, lower_is_better=lower_is_better)


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_models_that_help_are_taken_in_and_others_left_out(lower_is_better):
    # 4 and then 1 average to 2.5; 9 would move it away; 2.5 does not hurt
    made = scalar_soup({"a": 4.0, "b": 9.0, "c": 1.0, "d": 2.5}, 2.5, lower_is_better)
    assert made.ingredients == ("a", "c", "d")
    np.testing.assert_allclose(made.params["w"], 2.5)
    assert made.value == 0


def test_without_help_the_soup_is_the_best_model_itself():
    made = scalar_soup({"a": 1.1, "b": -3.0}, 1.0)
    assert made.ingredients == ("a",)
    assert made.params["w"] == np.float32(1.1)


def soup_config():
    changes = {"train.soup": 3, "train.duration": "120 steps", "train.eval_every": "8 steps", "train.checkpoint_every": "40 steps"}
    changes |= {"train.ema": 0.0, "optimizer.learning_rate": 0.1}
    return digits_config(**changes)


class Killed(Exception):
    pass


def test_a_run_keeps_the_best_models_and_ends_with_their_soup_also_if_killed_over_it(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    greedy = soup.greedy

    def killed(*args, **kwargs):
        raise Killed

    monkeypatch.setattr(soup, "greedy", killed)
    with pytest.raises(Killed):
        train.train(soup_config(), folder, console=Console(quiet=True))
    monkeypatch.setattr(soup, "greedy", greedy)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = sorted(record["val_loss"] for record in records if "val_loss" in record)
    kept = [path.name for path in (folder / "checkpoints").glob("best-*")]
    assert sorted(float(name.rsplit("-", 1)[1]) for name in kept) == [round(loss, 4) for loss in losses[:3]]

    results = train.train(soup_config(), folder, console=Console(quiet=True))
    assert results["checkpoint"] == f"checkpoints/{best.SOUP}"
    model, about = load_model(folder / results["checkpoint"])
    assert about["val_loss"] <= losses[0]
    assert 1 <= len(about["ingredients"]) <= 3
    parts = [load_model(folder / "checkpoints" / name)[0] for name in about["ingredients"]]
    for kind in ("params", "batch_stats"):
        mean = np.mean([part[kind]["backbone"]["bn0"]["scale" if kind == "params" else "var"] for part in parts], axis=0)
        np.testing.assert_allclose(model[kind]["backbone"]["bn0"]["scale" if kind == "params" else "var"], mean, rtol=1e-5)
    assert any("greedy soup" in note for note in results["notes"])
    again = train.train(soup_config(), folder, console=Console(quiet=True))
    assert again | {"train_seconds": 0} == results | {"train_seconds": 0}


def test_a_soup_needs_a_val_split(tmp_path):
    config = soup_config()
    config.data.split.fractions = (0.8, 0.0, 0.2)
    with pytest.raises(UserError, match=r"config\.train\.soup=3 needs a val split"):
        train.train(config, tmp_path / "run", console=Console(quiet=True))
