"""Networks, their published weights, and `create`, which builds the one that a config asks for.

The models' names are in `registry.NAMES`. A family of models is a file of this package and a line of registry.py, or a module of the
user's own: see `registry`.
"""

from imgclf.models.backbone import Backbone
from imgclf.models.build import abstract, create
from imgclf.models.network import Network
from imgclf.models.registry import NAMES

__all__ = ["NAMES", "Backbone", "Network", "abstract", "create"]
