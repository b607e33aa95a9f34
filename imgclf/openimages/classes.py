"""Class names and the hierarchy above them.

The hierarchy is a directed acyclic graph: 45 of the 600 classes have several parents (an oven is a kitchen appliance and a home
appliance), which is why every walk remembers what it has seen. Parts (a human eye is a part of a human body) are shown, but a class does
not include its parts.
"""

import csv
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from imgclf.errors import UserError, nearest
from imgclf.openimages import releases
from imgclf.openimages.metadata import Metadata

_ANEW = "delete the file, so that it is fetched anew."
ROOT = "Entity"  # the name of the one label without a name, /m/0bl9f
_IRREGULAR = {"people": "person", "men": "man", "women": "woman", "mice": "mouse", "geese": "goose", "feet": "foot", "teeth": "tooth"}


class UnknownClassError(UserError):
    """There is no class of that name; `name` is what was asked for."""

    def __init__(self, name: str, known: Mapping[str, str], containing: Sequence[str] = ()):
        """Finds the names that may have been meant.

        Args:
          name: what was asked for.
          known: lower-case name → name.
          containing: names that the given one is a part of.
        """
        self.name = name
        close = nearest(_plain(name), known)
        hint = "list them with `imgclf openimages classes`."
        if close.startswith("did you mean"):
            hint = re.sub(r"'([^']*)'", lambda match: repr(known.get(match[1], match[1])), close)
        if containing:
            hint = f"did you mean {' or '.join(map(repr, containing))}?"
        super().__init__(f"Open Images has no class {name!r} with boxes; {hint}")


@dataclasses.dataclass(frozen=True)
class Classes:
    """Classes and their relations, by label (machine id, such as "/m/0cdn1").

    Attributes:
      names: label → name.
      children: label → the labels directly below it, in the file's order.
      parents: label → the labels directly above it.
      parts: label → the labels of its parts.
      root: the label above all others.
    """

    names: dict[str, str]
    children: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]
    parts: dict[str, tuple[str, ...]]
    root: str

    def find(self, name: str) -> str:
        """Returns the label of a class, which is given by name (any case, singular or plural) or by label.

        Raises:
          UserError: with the nearest names.
        """
        if name in self.names:
            return name
        exact = {_plain(known): label for label, known in self.names.items()}
        loose: dict[str, set[str]] = {}
        for label, known in self.names.items():
            for form in _forms(known):
                loose.setdefault(form, set()).add(label)
        for form in _forms(name):
            if form in exact:
                return exact[form]
        for form in _forms(name):
            if len(loose.get(form, ())) == 1:
                return next(iter(loose[form]))
        containing = sorted(known for known in self.names.values() if _plain(name) in _plain(known))[:3]
        raise UnknownClassError(name, {plain: self.names[label] for plain, label in exact.items()}, containing)

    def search(self, pattern: str) -> list[str]:
        """Returns the labels whose name contains the pattern (any case, singular or plural), sorted by name."""
        wanted = _forms(pattern)
        hits = [label for label, name in self.names.items() if any(text in _plain(name) for text in wanted) or label == pattern]
        return sorted(hits, key=lambda label: self.names[label].lower())

    def expand(self, label: str) -> set[str]:
        """Returns the label and all its descendants; parts are no descendants."""
        return _reach(label, self.children)

    def ancestors(self, label: str) -> set[str]:
        """Returns all labels above, without the label itself."""
        return _reach(label, self.parents) - {label}

    def assign(self, asked: Iterable[str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
        """Decides which of the asked classes every label belongs to: the most specific one that includes it.

        Returns:
          label → asked label; and the labels that two asked classes include alike (a teddy bear, where Bear and Toy are asked), with
          those classes.
        """
        asked = list(dict.fromkeys(asked))
        reach = {label: self.expand(label) for label in asked}
        owner: dict[str, str] = {}
        torn: dict[str, tuple[str, ...]] = {}
        for label in sorted(set().union(*reach.values())):
            claims = [one for one in asked if label in reach[one]]
            specific = [one for one in claims if not any(other != one and other in reach[one] for other in claims)]
            if len(specific) == 1:
                owner[label] = specific[0]
            else:
                torn[label] = tuple(specific)
        return owner, torn


def load_classes(metadata: Metadata) -> Classes:
    """Loads the 600 classes with boxes, and their hierarchy."""
    names = read_names(metadata.text(releases.classes_file(metadata.version, boxable=True)))
    return read_hierarchy(metadata.text(releases.HIERARCHY), names)


def load_all_classes(metadata: Metadata) -> Classes:
    """Loads all classes that have labels of whole images, about 20,000; the hierarchy covers the 600 with boxes."""
    names = read_names(metadata.text(releases.classes_file(metadata.version, boxable=False)))
    return read_hierarchy(metadata.text(releases.HIERARCHY), names)


def read_names(path: Path) -> dict[str, str]:
    """Reads label → name from a class-descriptions CSV, with or without a header.

    Raises:
      UserError: naming the line, for one that is not LABEL,NAME.
    """
    names = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        try:
            for row in rows:
                if row == ["LabelName", "DisplayName"] or not row:
                    continue
                if len(row) != 2 or not row[0].startswith("/"):
                    raise UserError(f"{path}: line {rows.line_num} is damaged ({','.join(row)[:80]!r}): {_ANEW}")
                names[row[0]] = row[1]
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}: line {rows.line_num + 1} is damaged ({error}): {_ANEW}") from None
    return names


def read_hierarchy(path: Path, names: dict[str, str]) -> Classes:
    """Reads the relations of the classes from the nested hierarchy file: LabelName, Subcategory (kinds of it), Part."""
    children: dict[str, list[str]] = {}
    parents: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            label = node["LabelName"]
            for child in node.get("Subcategory", []):
                _add(children, label, child["LabelName"])
                _add(parents, child["LabelName"], label)
            for part in node.get("Part", []):
                _add(parts, label, part["LabelName"])
            waiting += node.get("Subcategory", []) + node.get("Part", [])
        root = tree["LabelName"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no class hierarchy ({error}): {_ANEW}") from None
    return Classes({**names, root: names.get(root, ROOT)}, _frozen(children), _frozen(parents), _frozen(parts), root)


def _add(relation: dict[str, list[str]], label: str, other: str) -> None:
    known = relation.setdefault(label, [])
    if other not in known:
        known.append(other)


def _frozen(relation: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    return {label: tuple(others) for label, others in relation.items()}


def _reach(label: str, edges: dict[str, tuple[str, ...]]) -> set[str]:
    seen, waiting = {label}, [label]
    while waiting:
        for other in edges.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _forms(name: str) -> list[str]:
    """Returns the name in lower case, then what its singular may be: `knives` → knives, knive, knif, knife."""
    plain = _plain(name)
    start, _, last = plain.rpartition(" ")
    forms = [last, _IRREGULAR.get(last, last)]
    for ending, replacements in (("s", ("",)), ("es", ("",)), ("ies", ("y",)), ("ves", ("f", "fe"))):
        if last.endswith(ending) and len(last) > len(ending) + 1:
            forms += [last[: -len(ending)] + replacement for replacement in replacements]
    return list(dict.fromkeys(f"{start} {form}".strip() for form in forms))
