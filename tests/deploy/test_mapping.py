"""`classifier.map`: which images are on it, what is known of them, and what is refused."""

import dataclasses

import pandas as pd
import pytest

from imgclf.errors import UserError


@pytest.mark.slow
def test_a_map_shows_the_run_s_images_or_others_with_what_they_were_taken_for(color_classifier, tmp_path):
    classifier, (train, test) = color_classifier
    own = classifier.map(path=tmp_path / "own.html", most=40, verbose=False)
    assert list(own) == ["id", "class_name", "split", "predicted", "x", "y"]
    assert len(own) == 40
    assert set(own["id"]) <= set(train.table["id"])
    said = pd.read_csv(classifier.folder / "predictions.csv").set_index("id")["predicted"]
    assert own["predicted"].tolist() == said.loc[own["id"]].tolist()
    assert "in cross-validation" in (tmp_path / "own.html").read_text()
    others = classifier.map(test, tmp_path / "others.html", verbose=False)
    assert set(others["id"]) == set(test.table["id"])
    assert others.set_index("id")["predicted"].to_dict() == classifier.predict(test).set_index("id")["predicted"].to_dict()


def test_what_makes_no_map_is_told_in_a_sentence(color_classifier, tmp_path):
    classifier, (_, test) = color_classifier
    with pytest.raises(UserError, match=r"most=4 .*a map shows 5 to 5,000 images"):
        classifier.map(most=4, verbose=False)
    with pytest.raises(UserError, match="3 images make no map: it takes 5"):
        classifier.map(test[:3], tmp_path / "page.html", verbose=False)
    with pytest.raises(UserError, match=r"no run with a table of images.*map\(data\)"):
        dataclasses.replace(classifier, folder=tmp_path).map(verbose=False)
    assert not (tmp_path / "page.html").exists()
