"""Names and hierarchy, against the real files."""

import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.openimages import radial_tree
from imgclf.openimages.classes import Classes, read_hierarchy, read_names


@pytest.fixture(scope="module")
def classes(shared) -> Classes:
    folder = shared / "data" / "openimages"
    return read_hierarchy(folder / "bbox_labels_600_hierarchy.json", read_names(folder / "class-descriptions-boxable.csv"))


def names(classes, labels):
    return {classes.names[label] for label in labels}


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("hamburger", "Hamburger"), ("HAMBURGERS", "Hamburger"), ("french fry", "French fries"), ("french_fries", "French fries"),
        ("buses", "Bus"), ("knives", "Knife"), ("women", "Woman"), ("tomatoes", "Tomato"), ("Scissors", "Scissors"),
        ("/m/0cdn1", "Hamburger"),
    ],
)  # fmt: skip
def test_names_in_any_case_and_number(classes, asked, name):
    assert classes.names[classes.find(asked)] == name


def test_every_real_name_is_found_as_it_is_and_in_the_plural(classes):
    for label, name in classes.names.items():
        assert classes.find(name.upper()) == label
        assert classes.find(name + "s") == label


def test_unknown_names_have_neighbours(classes):
    with pytest.raises(UserError, match=r"no class 'Hamburgr' with boxes; did you mean 'Hamburger'"):
        classes.find("Hamburgr")
    with pytest.raises(UserError, match=r"no class 'fries' with boxes; did you mean 'French fries'\?"):
        classes.find("fries")
    with pytest.raises(UserError, match=r"imgclf openimages classes"):
        classes.find("zzzzqqq")


def test_expansion_of_the_real_hierarchy(classes):
    assert names(classes, classes.expand(classes.find("Sandwich"))) == {"Sandwich", "Hamburger", "Submarine sandwich"}
    assert len(classes.expand(classes.root)) == 602
    assert names(classes, classes.parents[classes.find("Oven")]) == {"Kitchen appliance", "Home appliance"}
    assert sum(len(parents) > 1 for parents in classes.parents.values()) == 45
    # An eye is a part of a body, and no kind of it.
    assert classes.find("Human eye") in classes.parts[classes.find("Human body")]
    assert classes.find("Human eye") not in classes.expand(classes.find("Human body"))
    assert names(classes, classes.ancestors(classes.find("Hamburger"))) == {"Sandwich", "Food", "Entity"}


def test_expansion_equals_a_walk_of_the_file(classes, shared):
    def below(node, found, inside, label):
        inside = inside or node["LabelName"] == label
        if inside:
            found.add(node["LabelName"])
        for child in node.get("Subcategory", []):
            below(child, found, inside, label)
        for part in node.get("Part", []):
            below(part, found, False, label)

    tree = json.loads((shared / "data/openimages/bbox_labels_600_hierarchy.json").read_text())
    for label in classes.names:
        found: set[str] = set()
        below(tree, found, False, label)
        assert classes.expand(label) == found | {label}


def test_the_most_specific_class_wins(classes):
    sandwich, burger, food = map(classes.find, ("Sandwich", "Hamburger", "Food"))
    owner, torn = classes.assign([food, burger, sandwich])
    assert owner[burger] == burger
    assert owner[classes.find("Submarine sandwich")] == sandwich
    assert owner[classes.find("Pizza")] == food
    assert not torn


def test_a_class_under_two_asked_ones_belongs_to_neither(classes):
    bear, toy = map(classes.find, ("Bear", "Toy"))
    owner, torn = classes.assign([bear, toy])
    assert torn == {classes.find("Teddy bear"): (bear, toy)}
    assert classes.find("Teddy bear") not in owner
    owner, torn = classes.assign([bear, toy, classes.find("Teddy bear")])
    assert not torn


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_assignment_covers_and_is_specific(classes, data):
    asked = data.draw(st.lists(st.sampled_from(sorted(classes.names)), min_size=1, max_size=5, unique=True))
    owner, torn = classes.assign(asked)
    assert set(owner) | set(torn) == set().union(*map(classes.expand, asked))
    assert all(owner[label] == label for label in asked)
    for label, one in owner.items():
        assert label in classes.expand(one)
        assert not any(other != one and other in classes.expand(one) and label in classes.expand(other) for other in asked)


def test_search(classes):
    assert names(classes, classes.search("burgers")) == {"Hamburger"}
    assert {"Bear", "Teddy bear", "Polar bear"} <= names(classes, classes.search("BEAR"))


def test_loops_end(tmp_path):
    tree = '{"LabelName": "/a", "Subcategory": [{"LabelName": "/b", "Subcategory": [{"LabelName": "/a"}]}]}'
    (tmp_path / "tree.json").write_text(tree)
    looped = read_hierarchy(tmp_path / "tree.json", {"/a": "A", "/b": "B"})
    assert looped.expand("/b") == {"/a", "/b"}
    radial_tree.write_page(looped, tmp_path / "tree.html")


@pytest.mark.parametrize(
    ("text", "message"),
    [("/m/1,A\n/m/2\n", "line 2 is damaged"), ("x,y\n", "line 1 is damaged")],
)
def test_damaged_class_files_name_the_line(tmp_path, text, message):
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_names(tmp_path / "classes.csv")


def test_a_damaged_hierarchy_is_told(tmp_path):
    (tmp_path / "tree.json").write_text('{"LabelName": "/a", "Subcategory": [{}]}')
    with pytest.raises(UserError, match=r"no class hierarchy"):
        read_hierarchy(tmp_path / "tree.json", {})


def test_radial_tree_is_one_page_without_scripts(classes, tmp_path):
    page = radial_tree.write_page(classes, tmp_path / "tree.html").read_text()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    for name in names(classes, classes.names):
        assert name.replace("&", "&amp;") in page
    # Unfolded: as many texts as ways from the top.
    ways = {classes.root: 1}

    def count(label):
        if label not in ways:
            ways[label] = sum(count(parent) for parent in classes.parents.get(label, ()))
        return ways[label]

    assert page.count("</text>") == sum(count(label) for label in classes.names)


def test_radial_tree_of_one_class_with_counts(classes, tmp_path):
    sandwich = classes.find("Sandwich")
    page = radial_tree.write_page(classes, tmp_path / "tree.html", sandwich, {sandwich: 100, classes.find("Hamburger"): 50}).read_text()
    assert page.count("</text>") == 3
    assert "3 classes" in page
    assert 'id="large"' not in page  # its names are large enough


@pytest.mark.parametrize("name", ["", "Food", "Bear", "Hamburger"])
def test_the_radial_tree_fits_a_window_of_1280_pixels(name, classes, tmp_path):
    page = radial_tree.write_page(classes, tmp_path / "tree.html", classes.find(name) if name else None).read_text()
    width, height = map(float, re.search(r'<svg [^>]*width="([\d.]+)" height="([\d.]+)"', page).groups())
    assert width == height <= 1280 - 2 * 16 - 20  # the body's padding and a scroll bar
    assert f"max-width: {width:.0f}px" in page  # shrinks in a smaller window, and is never blown up
    font = float(re.search(r"font-size=\"([\d.]+)px\"", page)[1])
    large = int(re.search(r"svg { width: (\d+)px; max-width: none", page)[1])
    assert large * font / width == pytest.approx(12, abs=0.1)
    assert ('id="large"' in page) == (font < 12)


def test_names_of_the_radial_tree_have_room(classes):
    for label in (classes.root, classes.find("Food"), classes.find("Animal")):
        nodes = radial_tree._nodes(classes, label, {})
        _, radius, font = radial_tree._measures(nodes)
        parents = {node["parent"] for node in nodes}
        leaves = sum(node["id"] not in parents for node in nodes)
        assert 2 * math.pi * radius / leaves > 1.1 * font


def test_a_page_of_the_radial_tree_replaces_only_its_like(classes, tmp_path):
    page = tmp_path / "tree.html"
    radial_tree.write_page(classes, page)
    radial_tree.write_page(classes, page, counts={classes.root: 1})
    with pytest.raises(UserError, match=r"holds another page .class tree: Open Images: class hierarchy."):
        radial_tree.write_page(classes, page, classes.find("Food"))
    page.write_text("my notes")
    with pytest.raises(UserError, match="is no page of imgclf's, and is not replaced"):
        radial_tree.write_page(classes, page)
    assert page.read_text() == "my notes"
    radial_tree.write_page(classes, page, overwrite=True)
