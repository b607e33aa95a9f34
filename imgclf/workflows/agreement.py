"""Whether all hosts of a training were given the same: else they would wait for each other, or train on a mixture."""

from imgclf import config as config_lib
from imgclf.config import Config
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.runtime import hosts

# What hosts may have of their own: where the data are, which are compared themselves, and how they are read.
_OWN = {"data.path", "data.root", "data.tfds.data_dir", "data.in_memory_mb", "loader.threads", "loader.workers", "loader.prefetch"}


def check_same_config(config: Config) -> None:
    """Raises a UserError on all hosts, unless they have one config, but for what each may have of its own."""
    partners = hosts.current()
    if partners.count == 1:
        return
    first = config_lib.flatten(config_lib.from_json(partners.broadcast(config_lib.to_json(config).encode()).decode()))
    here = config_lib.flatten(config)
    differing = [name for name in here if name not in _OWN and here[name] != first[name]]
    changes = "; ".join(f"config.{name} is {first[name]!r} in process 0, {here[name]!r}" for name in differing)
    told = [text.decode() for text in partners.gather(changes.encode())]
    other = next((index for index, text in enumerate(told) if text), None)
    if other is not None:
        raise UserError(f"The processes have different configs: {told[other]} in process {other}; give all of them the same command.")


def check_same_data(dataset: Dataset) -> None:
    """Raises a UserError on all hosts, unless they have the same images, labels and splits."""
    if hosts.current().count > 1:
        columns = (dataset.table[name].tolist() for name in ("id", "label", "split", "sha256"))
        hosts.current().check_same_rows(["\t".join(map(str, row)) for row in zip(*columns, strict=True)], "labels and splits")
