"""Says what a training takes on described TPUs and GPUs, before any is rented: its programs are compiled ahead of time, none is run."""

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from imgclf import outputs, progress
from imgclf.config import Config
from imgclf.data import sources
from imgclf.errors import UserError, missing_extra, nearest
from imgclf.methods import resolve
from imgclf.planning import compiling, topologies, verdict
from imgclf.planning import programs as programs_lib
from imgclf.planning.topologies import Topology
from imgclf.planning.verdict import Sizes
from imgclf.reporting import plan as page
from imgclf.workflows import checks
from imgclf.workflows.asked import Asked, Fields, asked_for
from imgclf.workflows.console import or_terminal


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a training takes.

    Attributes:
      results: the contents of plan.json; written by `reporting.plan`.
      page: plan.html, beside plan.json.
    """

    results: dict[str, Any]
    page: Path

    @property
    def fits(self) -> bool:
        """Whether the training fits everywhere it was compiled for."""
        return all(one["fits"] is not False for one in self.results["topologies"])


def plan(  # noqa: PLR0913  (options by name)
    config: Config | str | os.PathLike[str],
    topology: str | Sequence[str],
    *,
    fields: Fields = (),
    images: int | None = None,
    classes: int | None = None,
    batch_per_chip: int | None = None,
    programs: Sequence[str] = (),
    verify: bool = False,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> Plan:
    """Says what a training takes on TPUs and GPUs that are not here, and bounds its speed.

        plan = imgclf.plan("imagenet_resnet50:photos", ["v5e:4x4", "h100:8"], images=1_281_167, classes=1000)
        plan.results["topologies"][0]["summary"]["images_per_second_per_chip"]

    The training's own programs are compiled for the described devices, in a process of its own, and nothing is allocated. What was compiled
    before is kept: the same plan is there at once. Where the compiler for a kind of devices isn't installed, the programs are only traced,
    which tells their dtypes, donation and arguments.

    Args:
      config: the whole config, or what `load_config` reads one from. Its data need not be there.
      topology: `CHIP:SHAPE`, such as "v5e:4x4", "h100:8" or, for two slices, "2*v5e:16x16"; several are compared.
      fields: what is set in the config, see `load_config`.
      images: how many images are trained on; None = as many as the data have.
      classes: likewise.
      batch_per_chip: images of a training batch, and of one of evaluation, for each chip; None = the config's batches for all chips.
      programs: some of "train", "eval" and "features"; () = those that the training runs.
      verify: whether to compile what is suggested for a training that does not fit; else it is an estimate.
      out: the folder for plan.html and plan.json; None = RUN/plan, or runs/NAME-plan.
      overwrite: whether to replace the page of another config in `out`.
      console: where to tell what happens; None = the terminal.

    Raises:
      UserError: for anything that the user can mend.

    Example:
      >>> imgclf.plan("folder:photos", "v5e")
      Traceback (most recent call last):
      imgclf.errors.UserError: ...'v5e' can't be read: write CHIP:SHAPE, such as v5e:4x4, h100:8 or, for two slices, 2*v5e:16x16.
    """
    console, asked = or_terminal(console), asked_for(config, fields)
    described = [topologies.parse(name) for name in ([topology] if isinstance(topology, str) else topology)]
    if not described:
        raise UserError("A plan needs a topology: give --topology=CHIP:SHAPE, such as v5e:4x4 or h100:8.")
    for name in programs:
        if name not in programs_lib.NAMES:
            raise UserError(f"--programs {name!r} is no program of a training; {nearest(name, programs_lib.NAMES)}")
    sizes = _sizes(asked, images, classes)
    resolved = {one.name: _resolved(asked.config, one, sizes, batch_per_chip) for one in described}
    target = _target(asked, out, overwrite=overwrite)
    planned = _Planner(sizes, tuple(programs), verify, console).plans([(one, resolved[one.name]) for one in described])
    about = f"{sizes.train:,} training images in {sizes.classes:,} classes ({sizes.source})"
    console.print(f"Planned for {about}.", markup=False, highlight=False)
    first = next(iter(resolved.values()))
    results = {
        "name": asked.config.name,
        "model": first.model.name,
        "precision": first.model.precision,
        "method": first.train.method,
        "image_size": list(first.data.image_size),
        "data": dataclasses.asdict(sizes),
        "topologies": planned,
    }
    written = page.write(target, page.identity(asked.config), results)
    return Plan(results, written)


@dataclasses.dataclass(frozen=True)
class _Planner:
    """Plans one topology after another, under one progress bar."""

    sizes: Sizes
    programs: tuple[str, ...]
    verify: bool
    console: Console

    def plans(self, asked: list[tuple[Topology, Config]]) -> list[dict[str, Any]]:
        total = sum(len(self._programs(config)) for _, config in asked)
        with progress.bar(self.console, "{task.fields[note]}") as bar:
            task = bar.add_task("programs", total=total, note="")

            def plan(topology: Topology, config: Config) -> dict[str, Any]:
                def told(program: str, state: str, *, done: bool) -> None:
                    bar.update(task, note=f"{topology.name}: {state} {program}", advance=1 if done else 0)

                return self._plan(topology, config, told)

            return [plan(topology, config) for topology, config in asked]

    def _programs(self, config: Config) -> tuple[str, ...]:
        own = programs_lib.names(config)
        return tuple(name for name in own if not self.programs or name in self.programs)

    def _plan(self, topology: Topology, config: Config, told: compiling.OnStep) -> dict[str, Any]:
        found = compiling.facts_of(self._demand(topology, config), told)
        chip = dataclasses.asdict(topology.chip)
        about: dict[str, Any] = {
            "topology": topology.name,
            "chips": topology.chips,
            "hosts": topology.hosts,
            "chip": {name: value for name, value in chip.items() if name not in ("target", "shapes")}
            | {"usable_bytes": topology.chip.usable_bytes},
            "compiler": compiling.compiler(topology),
            "batch_size": config.loader.batch_size,
            "batch_per_chip": config.loader.batch_size / topology.chips,
            "mesh": {
                "data": topology.chips // (config.mesh.fsdp * config.mesh.model),
                "fsdp": config.mesh.fsdp,
                "model": config.mesh.model,
            },
            "programs": found,
        }
        if not about["compiler"]:
            lowered = [dataclasses.asdict(finding) for finding in verdict.findings_of_lowered(found, config)]
            return about | {"fits": None, "summary": None, "findings": lowered, "suggestions": []}
        proposed = verdict.suggestions(found, config, topology)
        if self.verify:
            proposed = [one | {"verified": self._verified(topology, config, one["fields"], told)} for one in proposed]
        return about | {
            "fits": verdict.fits(found, topology),
            "summary": verdict.summary(found, config, topology, self.sizes),
            "findings": [dataclasses.asdict(finding) for finding in verdict.findings(found, config, topology)],
            "suggestions": proposed,
        }

    def _verified(self, topology: Topology, config: Config, fields: dict[str, Any], told: compiling.OnStep) -> dict[str, Any]:
        """What the training step takes with these fields."""
        other = config.copy_and_resolve_references()
        other.update_from_flattened_dict(fields)
        demand = dataclasses.replace(self._demand(topology, other), programs=(programs_lib.TRAIN,))
        (step,) = compiling.facts_of(demand, told)
        return {"fits": verdict.fits([step], topology), "bytes": step.get("needed") or step["memory"]["total"]}

    def _demand(self, topology: Topology, config: Config) -> compiling.Demand:
        return compiling.Demand(config, topology, self._programs(config), self.sizes.classes, self.sizes.train)


def missing_compiler(topology: str) -> UserError | None:
    """What to say where the compiler for a topology isn't installed: the line that installs it."""
    described = topologies.parse(topology)
    if compiling.compiler(described):
        return None
    kind = described.chip.kind
    return missing_extra(f"Compiling for {topology}", "libtpu" if kind == "tpu" else "JAX's plugin for CUDA", compiling.EXTRAS[kind])


def _resolved(config: Config, topology: Topology, sizes: Sizes, batch_per_chip: int | None) -> Config:
    """The config as a training on these devices would resolve it."""
    config = config.copy_and_resolve_references()
    if batch_per_chip is not None:
        if batch_per_chip < 1:
            raise UserError(f"--batch-per-chip={batch_per_chip} is no batch; give 1 or more.")
        config.loader.batch_size = config.loader.eval_batch_size = batch_per_chip * topology.chips
    try:
        checked = resolve.check(config, devices=topology.chips)
    except UserError as error:
        raise UserError(
            f"{topology.name}: {error} --batch-per-chip=N sets a batch for any number." if "divide among" in str(error) else str(error)
        ) from None
    return resolve.resolve(checked, sizes.classes)


def _sizes(asked: Asked, images: int | None, classes: int | None) -> Sizes:
    """How much data there is: as the user says, else as the run or the data's listing has it; nothing is decoded."""
    for option, value, least in (("--images", images, 1), ("--classes", classes, 2)):
        if value is not None and value < least:
            raise UserError(f"{option}={value} is not possible; give {least} or more.")
    if images is not None and classes is not None:
        return Sizes(classes, images, None, "as given")
    try:
        names, splits, source = _listed(asked)
    except UserError as error:
        lacking = " ".join(f"{option}=N" for option, value in (("--images", images), ("--classes", classes)) if value is None)
        raise UserError(f"{str(error).rstrip('.')}; without the data, plan needs {lacking}.") from None
    counts = collections.Counter(splits)
    shares = asked.config.data.split.fractions
    train = counts["train"] if counts["train"] else round(len(splits) * shares[0])
    val = counts["val"] if counts["train"] else round(len(splits) * shares[1])
    if classes is not None and classes != names:
        source = f"{source}, but for the classes, which are as given: the data have {names:,}"
    if images is not None and images != train:
        source = f"{source}, but for the training images, which are as given: the data have {train:,}"
    return Sizes(classes or names, images or train, val or None, source)


def _listed(asked: Asked) -> tuple[int, list[str], str]:
    """The number of classes, and the split of each image ("" = drawn later)."""
    if asked.run is not None and asked.same_data:
        table = pd.read_parquet(asked.run / "dataset.parquet", columns=["label", "split"])
        return int(table["label"].max()) + 1, table["split"].tolist(), "the run's own images"
    checks.check_data_path(asked.config)
    listing = sources.create(asked.config.data).listing()
    return len(set(listing.class_names)), list(listing.splits), "the data's listing, before any image is verified"


def _target(asked: Asked, out: str | os.PathLike[str] | None, *, overwrite: bool) -> Path:
    """Where the page goes; nothing else is replaced."""
    default = asked.run / "plan" if asked.run is not None else Path("runs") / f"{asked.config.name}-plan"
    folder = Path(out).expanduser() if out is not None else default
    checks.check_apart(asked.config, folder, "--out")
    target, of = folder / page.PAGE, page.identity(asked.config)
    return outputs.free_file(target, of) if out is None else outputs.check_file(target, of, overwrite=overwrite)
