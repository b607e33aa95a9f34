"""The config of an experiment: its fields (fields.py), their checks (validation.py), flags, files and durations."""

from imgclf.config.arguments import parse_arguments, parse_config_argument
from imgclf.config.fields import Config, default_config
from imgclf.config.names import check_field, flatten, override
from imgclf.config.serialization import FREE_ON_RESUME, changes, from_json, to_json

__all__ = [
    "FREE_ON_RESUME",
    "Config",
    "changes",
    "check_field",
    "default_config",
    "flatten",
    "from_json",
    "override",
    "parse_arguments",
    "parse_config_argument",
    "to_json",
]
