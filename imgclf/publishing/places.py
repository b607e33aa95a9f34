"""What the user calls a bundle's place, and the store that it is."""

from typing import Any

from imgclf import files
from imgclf.errors import UserError
from imgclf.publishing import stores
from imgclf.publishing.hub_store import Hub


def open_store(place: str) -> stores.Store:
    """Opens what the user calls a bundle's place: a folder, or an address such as s3://BUCKET/NAME or hf://USER/NAME."""
    if not place.strip():
        raise UserError("The place of the bundle is empty: name a folder, or an address such as s3://BUCKET/NAME.")
    if place.startswith("hf://"):
        return Hub(place)
    if "://" in place:
        return stores.Address(place)
    return stores.Folder(files.path_of(place, "the folder of a bundle"))


def is_address(place: Any) -> bool:
    """Whether a bundle's place is no folder of this machine."""
    return isinstance(place, str) and "://" in place
