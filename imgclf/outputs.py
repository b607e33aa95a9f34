"""Which files and folders may be replaced: one rule for pages and saved models, in Python and on the command line.

An output says of itself what it is of: a page in a `<meta>` element, a folder in a small JSON file. It is replaced where the new one is of
the same: the same kind, from the same model and data. Anything else stays as it is, unless the user asks for it with `overwrite`.
"""

import hashlib
import html
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from imgclf import files
from imgclf.errors import UserError

GENERATOR = '<meta name="generator" content="imgclf">'
_IDENTITY = re.compile(r'<meta name="imgclf-output" content="([^"]*)">')
_HEAD = 8000  # bytes of a page in which its identity stands
_WAY_OUT = "choose another path, or give overwrite=True to replace it."


@dataclass(frozen=True)
class Identity:
    """What an output is of.

    Attributes:
      kind: such as "mistakes" or "saved model".
      subject: for people: what the output was made from, such as "run photos on 36 images of birds".
      digest: of everything by which two outputs of a kind are told apart; outputs of one digest may replace each other.
    """

    kind: str
    subject: str
    digest: str


def identity(kind: str, subject: str, *parts: str) -> Identity:
    """The identity of an output.

    Args:
      kind, subject: see `Identity`.
      parts: what tells it from other outputs of its kind, such as the model's sha256 and that of the data. Names and places that may change
        while the content does not, such as a run's folder, are no good parts.
    """
    return Identity(kind, subject, hashlib.sha256(json.dumps([kind, *parts]).encode()).hexdigest()[:16])


def mark(of: Identity | None = None) -> str:
    """The elements by which a page is known again; they stand at the beginning of its `<head>`. None = a page that is not told apart."""
    if of is None:
        return GENERATOR
    return f'{GENERATOR}<meta name="imgclf-output" content="{html.escape(json.dumps(asdict(of)), quote=True)}">'


def check_file(path: str | os.PathLike[str], of: Identity | None = None, *, overwrite: bool = False) -> Path:
    """Returns where a page may be written; call it before the work whose result goes there.

    Args:
      path: of the page; "~" is the home folder.
      of: what the page will be of; None = it may replace any page that is not told apart either.
      overwrite: whether to replace any other file.

    Raises:
      UserError: if a folder, or something that is not to be replaced, stands there.
    """
    path = files.path_of(path, "the path of a page")
    if path.is_dir():
        raise UserError(f"{path} is a folder: name the page in it, such as {path / 'page.html'}.")
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{path} would hold a page, which is HTML: name a file such as {path.with_suffix('.html')}.")
    if os.path.lexists(path) and not overwrite and (told := _other(path, of)):
        raise UserError(f"{path} {told}, and is not replaced: {_WAY_OUT}")
    return path


def free_file(path: Path, of: Identity) -> Path:
    """Returns `path`, or with -2, -3, … before its suffix where the former hold something else: for paths that the user did not choose."""
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not os.path.lexists(candidate) or (not candidate.is_dir() and not _other(candidate, of)):
            return candidate
        number += 1


def check_folder(path: str | os.PathLike[str], of: Identity, mark_name: str, *, overwrite: bool = False) -> Path:
    """Returns where a folder may be written as a whole, as an absolute path.

    A folder that does not hold an output of this kind is never replaced, not even with `overwrite`: it might be somebody's photos.

    Args:
      path: of the folder; "~" is the home folder.
      of: what it will be of.
      mark_name: the file in it that holds its identity; see `write_mark`.
      overwrite: whether to replace an output of the same kind that is of something else.

    Raises:
      UserError: if something that is not to be replaced stands there.
    """
    target = files.path_of(path, "a folder").absolute()
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return target
    found = _read_mark(target / mark_name)
    if found is None:
        what = "a folder with other things" if target.is_dir() else "a file"
        raise UserError(f"{target} is {what}, no {of.kind}, and is not replaced: choose another folder, or remove it yourself.")
    if found.get("digest") != of.digest and not overwrite:
        raise UserError(
            f"{target} holds another {of.kind} ({found.get('subject', 'of an unknown origin')}), and is not replaced: {_WAY_OUT}"
        )
    return target


def write_mark(path: Path, of: Identity) -> None:
    """Writes the file by which a folder is known again."""
    path.write_text(json.dumps(asdict(of), indent=2, ensure_ascii=False) + "\n", encoding="utf-8", errors="backslashreplace")


def _other(path: Path, of: Identity | None) -> str:
    """What else the file is; "" where it may be replaced."""
    head = ""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(_HEAD).decode("utf-8", "replace")
    if GENERATOR not in head:
        return "is no page of imgclf's"
    found = _IDENTITY.search(head)
    if found is None:
        return "" if of is None else "is a page of another kind, or of an unknown origin"
    try:
        there = Identity(**json.loads(html.unescape(found[1])))
    except (ValueError, TypeError):  # somebody has edited it
        return "is a page of an unknown origin"
    if of is not None and there.digest == of.digest:
        return ""
    return f"holds another page ({there.kind}: {there.subject})"


def _read_mark(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
