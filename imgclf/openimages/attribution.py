"""Who made the photos and under which licence: ATTRIBUTION.csv and a summary of the licences.

CC BY asks for the author, the title, the licence, a link to the work, and a note of what was changed
(https://wiki.creativecommons.org/wiki/Recommended_practices_for_attribution).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from imgclf import files

FILE = "ATTRIBUTION.csv"
COLUMNS = ("file", "image_id", "title", "author", "author_url", "licence", "licence_url", "landing_url", "changes")
# What someone who uses the photos must do, by the letters of the licence.
_TERMS = {
    "BY": "name the author, link the licence, say what was changed",
    "SA": "share what you make of them under the same licence",
    "NC": "no commercial use",
    "ND": "no derivatives: crops must not be shared",
}


def licence_name(url: str | None) -> str:
    """Returns "CC BY 2.0" for `https://creativecommons.org/licenses/by/2.0/`; an unknown licence is its URL, an absent one "unknown"."""
    if not isinstance(url, str) or not url.strip():
        return "unknown"
    match = re.search(r"creativecommons\.org/licenses/([a-z-]+)/([\d.]+)", url)
    if match:
        return f"CC {match[1].upper()} {match[2]}"
    if "creativecommons.org/publicdomain/zero" in url:
        return "CC0"
    return url.strip()


def terms(name: str) -> str:
    """Says in a few words what a licence asks of those who use a photo."""
    letters = name.split(" ")[1].split("-") if name.startswith("CC ") and " " in name else []
    return "; ".join(_TERMS[letter] for letter in letters if letter in _TERMS) or ("none" if name == "CC0" else "find them out before use")


def write(folder: Path, images: pd.DataFrame, changes: Mapping[str, str], paths: Mapping[str, str]) -> Path:
    """Writes `folder`/ATTRIBUTION.csv, a row per photo that is there.

    Args:
      images: the images of a selection.
      changes: image id → what was changed; an image that it lacks is given as "none".
      paths: image id → path below the folder; photos without one are left out.
    """
    rows = images[images["image_id"].isin(set(paths))]
    table = pd.DataFrame(
        {
            "file": rows["image_id"].map(dict(paths)),
            "image_id": rows["image_id"],
            "title": rows["title"],
            "author": rows["author"],
            "author_url": rows["author_url"].fillna(""),
            "licence": rows["licence"].map(licence_name),
            "licence_url": rows["licence"].fillna(""),
            "landing_url": rows["landing_url"].fillna(""),
            "changes": rows["image_id"].map(dict(changes)).fillna("none"),
        },
        columns=COLUMNS,
    )
    with files.replacing(folder / FILE) as aside:
        table.to_csv(aside, index=False, lineterminator="\n")
    return folder / FILE


def read(folder: Path) -> pd.DataFrame:
    """Reads `folder`/ATTRIBUTION.csv, all of it as text; what is empty is ""."""
    return pd.read_csv(folder / FILE, dtype=str, keep_default_na=False)


def summary(attribution: pd.DataFrame) -> pd.DataFrame:
    """Counts, for each licence, its photos, their authors, and the photos without a named author or link, beside what it asks for.

    Args:
      attribution: the table of ATTRIBUTION.csv.
    """
    filled = attribution.fillna("").astype(str)
    rows = [
        {
            "licence": name,
            "photos": len(group),
            "authors": group.loc[group["author"] != "", "author_url"].where(lambda urls: urls != "", group["author"]).nunique(),
            "author_missing": int((group["author"] == "").sum()),
            "link_missing": int((group["landing_url"] == "").sum()),
            "terms": terms(str(name)),
        }
        for name, group in filled.groupby("licence", sort=True)
    ]
    return pd.DataFrame(rows, columns=["licence", "photos", "authors", "author_missing", "link_missing", "terms"])
