"""The engines: which one a folder gets, and that both say the same."""

import numpy as np
import pytest

from imgclf.data.images import ImageError
from imgclf.errors import UserError
from imgclf.serving.engines import open_engine


def test_a_run_without_an_export_is_told(color_classifier):
    folder = color_classifier[0].folder
    with pytest.raises(UserError, match=r"has no export in .*: write it with imgclf export"):
        open_engine(folder, "onnx", 10**6)


@pytest.mark.slow
def test_an_export_says_what_the_run_says(color_classifier, files, tmp_path):
    pytest.importorskip("onnxruntime")
    classifier, _ = color_classifier
    exported = classifier.export("onnx", tmp_path / "onnx")
    engines = open_engine(classifier.folder, "auto", 10**6), open_engine(exported.folder, "auto", 10**6)
    assert [engine.name for engine in engines] == ["jax", "onnx"]
    with pytest.raises(UserError, match="the engine jax does not compute"):
        open_engine(exported.folder, "jax", 10**6)
    views = [np.stack([engine.view(data) for data in files.values()]) for engine in engines]
    assert np.array_equal(*views)
    jax, onnx = (engine.answers(views[0]) for engine in engines)
    np.testing.assert_allclose(onnx.probabilities, jax.probabilities, atol=1e-5)
    np.testing.assert_array_equal(onnx.none_of_these, jax.none_of_these)
    assert engines[0].conformal == engines[1].conformal
    for engine in engines:
        with pytest.raises(ImageError):
            engine.view(files["a.jpg"][:-40])
    (exported.folder / "model.onnx").write_bytes(b"")
    with pytest.raises(UserError, match="has changed since it was exported"):
        open_engine(exported.folder, "auto", 10**6)
