"""A pack that `imgclf data pack` has made: photos in a few large files, with their classes and splits.

The model and its training are those of the config folder. To train another config on the pack:
imgclf train CONFIG --set data.source=packed --set data.path=DIR
Cost: less than that of the photos, as far as reading is what takes the time. Expected: as there.
Command: imgclf train packed:DIR
"""

from imgclf.config import Config, load_config
from imgclf.data.packing import manifest
from imgclf.data.packing.places import place_of
from imgclf.errors import UserError


def get_config(path: str = "") -> Config:
    if not path:
        raise UserError("The config packed needs the folder of your pack: packed:DIR.")
    pack = manifest.read(place_of(path))
    config = load_config(f"folder:{path}")
    config.name = pack.name
    config.data.source = "packed"
    config.data.scenes = "auto" if pack.scenes else "off"  # what was found of the photos stands in the pack
    return config
