"""Class names as people write them: one spelling for one class, and names that only look alike are told apart by an error."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from imgclf.errors import UserError, nearest

Rows = Sequence[tuple[str, str]]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"([+-]?\d+)\.0*")


def canonical(name: str) -> str:
    """The one spelling of a class name: Unicode's composed form (NFC), without outer blanks and invisible characters."""
    name = unicodedata.normalize("NFC", name)
    start, end = 0, len(name)
    while start < end and _is_blank(name[start]):
        start += 1
    while end > start and _is_blank(name[end - 1]):
        end -= 1
    return name[start:end]


def _is_blank(letter: str) -> bool:
    return letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf")


def numbers(labels: Sequence[str]) -> list[str]:
    """Writes whole numbers in one way: where all labels are numbers, "1.0" is "1", as pandas makes one of the other; "01" stays."""
    if all(_NUMBER.fullmatch(label) for label in labels if label):
        return [match[1] if (match := _WHOLE.fullmatch(label)) else label for label in labels]
    return list(labels)


def joined(names: Iterable[str]) -> list[str]:
    """A sentence for each class that was found in several spellings."""
    spellings = defaultdict(set)
    for name in names:
        spellings[canonical(name)].add(name)
    several = {name: sorted(found) for name, found in spellings.items() if len(found) > 1}
    return [
        f"{', '.join(map(ascii, found))} differ in blanks or Unicode form only: one class, {name!r}." for name, found in several.items()
    ]


def mapping(class_map: Rows, known: Iterable[str]) -> dict[str, str]:
    """Old name → new name, both canonical.

    Raises:
      UserError: for rows of another form, for an old name that no class has, and for two new names of one class.
    """
    known = set(known)
    found: dict[str, str] = {}
    for row in class_map:
        if not (isinstance(row, tuple) and len(row) == 2 and all(isinstance(name, str) and canonical(name) for name in row)):
            raise UserError(f'config.data.class_map has a row {row!r} that is not (old name, new name), such as ("Cat", "cat").')
        old, new = map(canonical, row)
        if old not in known:
            raise UserError(f"config.data.class_map renames {old!r}, which is no class of the data; {nearest(old, sorted(known))}")
        if found.setdefault(old, new) != new:
            raise UserError(f"config.data.class_map gives {old!r} two new names, {found[old]!r} and {new!r}: keep one row.")
    return found


def alike(names: Iterable[str]) -> str:
    """The sentence that names two classes that people would take for one, as they differ in case, blanks or hidden letters; "" = none."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        visible = "".join(letter for letter in unicodedata.normalize("NFKC", name) if unicodedata.category(letter) not in ("Cc", "Cf"))
        other = seen.setdefault(re.sub(r"\s+", " ", visible).casefold(), name)
        if other != name:
            what = "upper and lower case" if other.casefold() == name.casefold() else "blanks or letters that look the same"
            return (
                f"The classes {other!r} and {name!r} ({other!a} and {name!a}) differ in {what} only: merge them by "
                f"config.data.class_map=(({name!r}, {other!r}),), or give them names that differ."
            )
    return ""
