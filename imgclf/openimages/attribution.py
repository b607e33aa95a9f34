"""Who made the photos and under which licence: ATTRIBUTION.csv and a summary of the licences.

CC BY asks for the author, the title, the licence, a link to the work, and a note of what was changed
(https://wiki.creativecommons.org/wiki/Recommended_practices_for_attribution).
"""

import os
import re
from pathlib import Path

import pandas as pd

COLUMNS = ("file", "image_id", "title", "author", "author_url", "licence", "licence_url", "landing_url", "changes")
# What a user of the photos must do, by the letters of the licence.
_TERMS = {
    "BY": "name the author, link the licence, say what was changed",
    "SA": "share what you make of them under the same licence",
    "NC": "no commercial use",
    "ND": "no derivatives: crops must not be shared",
}


def licence_name(url: str | None) -> str:
    """`https://creativecommons.org/licenses/by/2.0/` → "CC BY 2.0"; an unknown licence is its URL, an absent one "unknown"."""
    if not isinstance(url, str) or not url.strip():
        return "unknown"
    match = re.search(r"creativecommons\.org/licenses/([a-z-]+)/([\d.]+)", url)
    if match:
        return f"CC {match[1].upper()} {match[2]}"
    if "creativecommons.org/publicdomain/zero" in url:
        return "CC0"
    return url.strip()


def terms(name: str) -> str:
    """The duties that come with a licence, in a few words."""
    letters = name.split(" ")[1].split("-") if name.startswith("CC ") and " " in name else []
    return "; ".join(_TERMS[letter] for letter in letters if letter in _TERMS) or ("none" if name == "CC0" else "find them out before use")


def write(folder: Path, images: pd.DataFrame, changes: dict[str, str], files: dict[str, str]) -> Path:
    """Writes `folder`/ATTRIBUTION.csv, a row per photo that is there.

    Args:
      images: of a selection.
      changes: image id → what was changed.
      files: image id → path below the folder; photos without one are left out.
    """
    rows = images[images["image_id"].isin(set(files))]
    table = pd.DataFrame(
        {
            "file": rows["image_id"].map(files),
            "image_id": rows["image_id"],
            "title": rows["title"],
            "author": rows["author"],
            "author_url": rows["author_url"].fillna(""),
            "licence": rows["licence"].map(licence_name),
            "licence_url": rows["licence"].fillna(""),
            "landing_url": rows["landing_url"].fillna(""),
            "changes": rows["image_id"].map(changes).fillna("none"),
        },
        columns=COLUMNS,
    )
    aside = folder / "ATTRIBUTION.csv.part"
    table.to_csv(aside, index=False, lineterminator="\n")
    os.replace(aside, folder / "ATTRIBUTION.csv")
    return folder / "ATTRIBUTION.csv"


def summary(attribution: pd.DataFrame) -> pd.DataFrame:
    """Photos, authors, and photos without a named author or link, by licence, with what the licence asks for.

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
