"""Forms of convolutions that are chosen by measuring: all of them agree up to rounding."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from imgclf.models import layers
from imgclf.models.cpu import chosen, onednn, tuning
from imgclf.models.cpu.chosen import Forms, Layer, Table

LAYERS = [
    Layer((3, 9, 8, 16), (3, 3, 16, 24), 1, ((1, 1), (1, 1)), False),
    Layer((3, 9, 8, 16), (3, 3, 16, 24), 1, ((1, 1), (1, 1)), True),
    Layer((4, 8, 8, 16), (3, 3, 16, 32), 2, ((0, 1), (0, 1)), True),
    Layer((2, 7, 7, 32), (1, 1, 32, 16), 1, ((0, 0), (0, 0)), False),
    Layer((5, 12, 12, 3), (7, 7, 3, 16), 2, ((3, 3), (3, 3)), False),
]


def operands(layer: Layer) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in (layer.maps, layer.kernel, layer.outputs)]


def check(layer: Layer, combinations: list[Forms]) -> None:
    x, kernel, grad = operands(layer)

    def plain(x, kernel):
        strides = (layer.stride, layer.stride)
        return jax.lax.conv_general_dilated(x, kernel, strides, layer.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    y, pull_back = jax.vjp(plain, x, kernel)
    expected = (y, *pull_back(grad))
    for forms in combinations:

        @jax.jit
        def in_forms(x, kernel, grad, forms=forms):
            y, pull_back = jax.vjp(lambda x, k: chosen.conv2d(x, k, layer.stride, layer.padding, layer.rounded, forms), x, kernel)
            return y, *pull_back(grad)

        for ours, theirs in zip(in_forms(x, kernel, grad), expected, strict=True):
            error = float(jnp.abs(ours - theirs).max() / jnp.abs(theirs).max())
            assert error < (2e-2 if layer.rounded else 5e-6), (layer, forms, error)


def test_forms_agree():
    check(LAYERS[0], [Forms("plain", "winograd", "plain")])
    check(LAYERS[1], [Forms("winograd", "float32", "plain")])


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_all_forms_agree_also_onednns(layer):
    possible = chosen.candidates(layer)
    if onednn.missing() is not None:
        pytest.skip(onednn.missing())
    assert "onednn" in possible["kernel_gradient"]
    check(layer, [Forms(*names) for names in itertools.product(*possible.values())])


def test_a_layers_forms_come_from_the_table_in_use():
    layer = LAYERS[0]
    x, kernel, _ = operands(layer)

    def traced() -> str:
        return str(jax.make_jaxpr(lambda x, kernel: layers.conv2d(x, kernel, padding=layer.padding))(x, kernel))

    with chosen.noting() as seen:
        usual = traced()
    assert list(seen) == [layer]
    table = Table(((layer, Forms("winograd", "plain", "plain")),))
    with chosen.using(Table.from_json(json.loads(json.dumps(table.to_json())))):
        assert traced().count("dot_general") == 16
    assert traced() == usual
    assert "dot_general" not in usual


def test_a_winner_is_faster_beyond_noise():
    usual = [10.0, 11.0, 10.0, 12.0, 10.0]
    assert tuning._winner({"plain": usual, "winograd": [9.8, 10.8, 9.9, 11.9, 9.9]}) == "plain"  # by less than 5 %
    assert tuning._winner({"plain": usual, "winograd": [8.0, 12.0, 12.5, 8.0, 8.0]}) == "plain"  # not often enough
    assert tuning._winner({"plain": usual, "winograd": [8.0, 8.0, 8.5, 8.0, 8.0], "onednn": [7.0] * 5}) == "onednn"


def test_what_was_measured_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("IMGCLF_CACHE", str(tmp_path))
    monkeypatch.setattr(onednn, "missing", lambda: "it is not asked for")
    layer, calls = Layer((1, 4, 4, 4), (1, 1, 4, 4), 1, ((0, 0), (0, 0)), False), []
    measured = [tuning.Measured(part, {"plain": 2.0, "onednn": 1.0}, "onednn") for part in Forms._fields]
    monkeypatch.setattr(tuning, "_measure", lambda layer: calls.append(layer) or measured)
    quiet = Console(quiet=True)
    assert tuning.tune([layer, layer], quiet) == tuning.tune([layer], quiet) == {layer: measured}
    assert calls == [layer]
    assert tuning.table_of({layer: measured}).rows == ((layer, Forms("onednn", "onednn", "onednn")),)
    for file in (tmp_path / "forms").iterdir():
        file.write_text("{")
    tuning.tune([layer], quiet)
    assert len(calls) == 2
