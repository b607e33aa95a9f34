"""The config of an experiment: its fields (fields.py), their checks (validation.py), where one comes from (loading.py), and durations."""

from imgclf.config.arguments import parse_arguments, parse_config_argument
from imgclf.config.fields import Config, default_config
from imgclf.config.loading import load_config, run_of, shipped
from imgclf.config.names import check_field, flatten, override, parse_assignment, set_fields
from imgclf.config.serialization import FREE_ON_RESUME, changes, digest, from_json, to_json

__all__ = [
    "FREE_ON_RESUME",
    "Config",
    "changes",
    "check_field",
    "default_config",
    "digest",
    "flatten",
    "from_json",
    "load_config",
    "override",
    "parse_arguments",
    "parse_assignment",
    "parse_config_argument",
    "run_of",
    "set_fields",
    "shipped",
    "to_json",
]
