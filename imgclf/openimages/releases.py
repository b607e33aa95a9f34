"""Where Open Images keeps its files: versions, splits, paths and columns.

Source: https://storage.googleapis.com/openimages/web/download_v7.html and its siblings for V4 to V6. A later version takes over the
files that it did not change: V7's validation boxes are those of V5, and all versions use V4's class hierarchy.
"""

from imgclf.errors import UserError, nearest

BASE_URL = "https://storage.googleapis.com/openimages/"  # class names, boxes, labels, image lists
MIRROR_URL = "https://open-images-dataset.s3.amazonaws.com/"  # photos with boxes, longest side 1,024 px
VERSIONS = ("V4", "V5", "V6", "V7")
SPLITS = ("train", "validation", "test")
HIERARCHY = "2018_04/bbox_labels_600_hierarchy.json"

FLAGS = ("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside")  # 1, 0 or -1 (unknown)
BOX_COLUMNS = (
    "ImageID",
    "Source",
    "LabelName",
    "Confidence",
    "XMin",
    "XMax",
    "YMin",
    "YMax",
    *FLAGS,
)
LABEL_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")
IMAGE_COLUMNS = (
    "ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title", "OriginalSize",
    "OriginalMD5", "Thumbnail300KURL", "Rotation",
)  # fmt: skip

_BOXABLE = {
    "V4": "2018_04/class-descriptions-boxable.csv",
    "V5": "v5/class-descriptions-boxable.csv",
    "V6": "v5/class-descriptions-boxable.csv",
    "V7": "v7/oidv7-class-descriptions-boxable.csv",
}
_ALL_CLASSES = {
    "V4": "2018_04/class-descriptions.csv",
    "V5": "v5/class-descriptions.csv",
    "V6": "v6/oidv6-class-descriptions.csv",
    "V7": "v7/oidv7-class-descriptions.csv",
}


def check_version(version: str) -> str:
    """Returns the version as Open Images writes it; raises a UserError for one that it doesn't have."""
    if version.upper() not in VERSIONS:
        raise UserError(f"Open Images has no version {version!r}; {nearest(version, VERSIONS)}")
    return version.upper()


def check_split(split: str) -> str:
    """Returns the split as Open Images writes it (`val` and `valid` are understood); raises a UserError for one that it doesn't have."""
    split = {"val": "validation", "valid": "validation"}.get(split.lower(), split.lower())
    if split not in SPLITS:
        raise UserError(f"Open Images has no split {split!r}; {nearest(split, SPLITS)}")
    return split


def classes_file(version: str, boxable: bool) -> str:
    """Returns the path, below the base URL, of the class names: the 600 with boxes, or all that have labels of whole images."""
    return (_BOXABLE if boxable else _ALL_CLASSES)[version]


def boxes_file(version: str, split: str) -> str:
    """Returns the path of the boxes; those of train are 14.6 M rows."""
    if split == "train":
        return "v6/oidv6-train-annotations-bbox.csv" if version in ("V6", "V7") else "2018_04/train/train-annotations-bbox.csv"
    return f"2018_04/{split}/{split}-annotations-bbox.csv" if version == "V4" else f"v5/{split}-annotations-bbox.csv"


def labels_file(version: str, split: str, boxable: bool) -> str:
    """Returns the path of the human-verified labels of whole images: of the 600 classes on photos with boxes, or of all classes."""
    suffix = "-boxable" if boxable else ""
    if version == "V4":
        return f"2018_04/{split}/{split}-annotations-human-imagelabels{suffix}.csv"
    if boxable or version == "V5" or (version == "V6" and split != "train"):
        return f"v5/{split}-annotations-human-imagelabels{suffix}.csv"
    short = "val" if split == "validation" and version == "V7" else split
    return f"{version.lower()}/oid{version.lower()}-{short}-annotations-human-imagelabels.csv"


def images_file(split: str, boxable: bool) -> str:
    """Returns the path of the image list: URLs, licence, author, title, size, MD5, rotation."""
    if split != "train":
        return f"2018_04/{split}/{split}-images-with-rotation.csv"
    return "2018_04/train/train-images-boxable-with-rotation.csv" if boxable else "v6/oidv6-train-images-with-labels-with-rotation.csv"
