"""One experiment: data → split and audited table → trained model → evaluation → report, all of it in the run's folder."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imgclf import files, formatting
from imgclf.config import Config
from imgclf.data import background, late_audit, run_images
from imgclf.data.prepare import prepare
from imgclf.data.scenes import FindScenes
from imgclf.data.table import Dataset
from imgclf.errors import UserError
from imgclf.evaluation import metrics, open_set
from imgclf.evaluation import results as results_lib
from imgclf.methods import choice, resolve
from imgclf.methods.base import Task
from imgclf.probes import shared_features
from imgclf.remote.retrying import Unreachable
from imgclf.reporting import samples
from imgclf.reporting import scenes as scenes_page
from imgclf.training import initialization, loop, sharding
from imgclf.training.stopping import OUT_OF_TIME, Interrupted
from imgclf.workflows import agreement, checks, explain, previous, run_folder, scenes, tune
from imgclf.workflows import time_limit as time_limits
from imgclf.workflows.asked import Fields, asked_for
from imgclf.workflows.console import or_terminal
from imgclf.workflows.time_limit import TimeLimit

_EVALUATION = 0.05  # share of a time limit that is left to the evaluation and the report when training is stopped


def train(
    config: Config | str | os.PathLike[str],
    workdir: str | os.PathLike[str] | None = None,
    *,
    fields: Fields = (),
    console: Console | None = None,
    dataset: Dataset | None = None,
    on_evaluation: loop.OnEvaluation | None = None,
    time_limit: TimeLimit | str | float | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and reports one experiment in `workdir`; continues there if it was interrupted.

        results = imgclf.train("quickstart")
        results = imgclf.train("folder:photos", "runs/photos", fields={"data.image_size": 128})

    A run that had finished is evaluated and reported again, which is cheap and changes nothing.

    Args:
      config: the whole config, or what `load_config` reads one from. A run's, with the splits given, is trained on the run's own images.
      workdir: the run's folder; it is made. None = runs/NAME, after config.name. A URL, such as s3://bucket/runs/photos: a working copy in
        the cache folder is sent there after each checkpoint, and fetched from there where the run had begun elsewhere.
      fields: what is set in the config, see `load_config`.
      console: where to tell what happens; None = the terminal.
      dataset: taken instead of what `config.data` names. Its splits are completed as those of a source are: a missing val comes out
        of train.
      on_evaluation: told of every evaluation on val while the network trains; what it raises ends the run.
      time_limit: such as "10 minutes": a training of the network that is not done by then ends where it is, and is evaluated. Where it
        ended stands in the run's config as train.stop_after, so that the config makes the same model without looking at a clock.

    Returns:
      The contents of `results.json`.

    Raises:
      UserError: for anything that the user can mend. Where it is raised before training begins, nothing is left of the run's folder.
      loop.Interrupted: if training was asked to stop; its state is saved.

    Example:
      >>> import json
      >>> from pathlib import Path
      >>> results = imgclf.train("runs/photos", "runs/again", console=quiet)
      >>> before = json.loads(Path("runs/photos/results.json").read_text())
      >>> results["top1"], results["params_sha256"] == before["params_sha256"]  # any run, exactly again
      (1.0, True)
    """
    asked = asked_for(config, fields)
    config = asked.config
    if dataset is None and asked.run is not None and asked.same_data and config.data.split.method == "given":
        dataset = run_images.load(asked.run, config)  # `imgclf.create` was given splits that the source doesn't know of
    folder = checks.check_workdir(config, workdir)
    console = or_terminal(console, quiet=jax.process_index() != 0)
    limit = time_limit if isinstance(time_limit, TimeLimit | None) else TimeLimit(time_limits.seconds(time_limit))
    with run_folder.at(folder, workdir, functools.partial(console.print, highlight=False, soft_wrap=True)):
        try:
            return Training(config, folder, console, dataset, None, on_evaluation, asked.run).run(limit)
        except Unreachable as error:  # outside of the training loop, which says which step it has saved
            if not folder.exists():  # nothing was done yet
                raise
            told = f"{str(error).rstrip('.')}; what was done is saved, and the same command continues there."
            raise UserError(told) from error


@dataclasses.dataclass(frozen=True)
class Training:
    """One experiment; see `train`.

    Attributes:
      config: the whole config.
      folder: the run's.
      console: where to tell what happens.
      dataset: taken instead of what `config.data` names; None = that.
      find_scenes: looks for shots of one scene, where `config.data.scenes` is "auto"; None = `scenes.finder`, by the config's own features.
      on_evaluation: told of every evaluation on val.
      like: the folder of the run whose config this is, and whose forms of convolutions are taken; None = it is no run's.
    """

    config: Config
    folder: Path
    console: Console
    dataset: Dataset | None = None
    find_scenes: FindScenes | None = None
    on_evaluation: loop.OnEvaluation | None = None
    like: Path | None = None

    def run(self, limit: TimeLimit | None = None) -> dict[str, Any]:
        """Trains, evaluates and reports; returns the contents of results.json, see `train`."""
        if limit is None:
            return self._run(None)
        if jax.process_count() > 1:
            raise UserError("A time limit is for training in one process: the clocks of several differ. Use config.train.duration.")
        try:
            return self._run(limit.deadline(_EVALUATION * limit.seconds))
        except Interrupted as stop:
            if stop.signum != OUT_OF_TIME:
                raise
            self.config.train.stop_after = f"{stop.step} steps"
            run_folder.write_stop(self.folder, self.config.train.stop_after)
            self.console.print(f"The time limit of {limit} is over: training ends after {stop.step:,} steps.", highlight=False)
        return self._run(None)

    def _run(self, deadline: float | None) -> dict[str, Any]:
        folder, console = self.folder, self.console
        config = check(self.config, self.dataset)
        agreement.check_same_config(config)
        prepared = prepare(config, self.dataset, self.find_scenes or scenes.finder(config, console))
        dataset, audit_report = prepared.dataset, prepared.audit_report
        agreement.check_same_data(dataset)
        config = resolve.resolve(prepared.config, len(dataset.class_names))
        with run_folder.claim(folder):
            run_folder.check_same_experiment(config, folder)
            run_folder.check_same_data(dataset, folder)
            describe_data(dataset, audit_report, console)
            if prepared.scenes is not None:
                console.print(prepared.scenes.sentence(), highlight=False)

            mesh = sharding.create_mesh(sizes=config.mesh)
            model = initialization.create_model(config, len(dataset.class_names), mesh, tell=console.print)
            begun = folder if (folder / run_folder.CONFIG).exists() else self.like
            images = int((dataset.table["split"] == "train").sum())
            if (forms := tune.forms_for(config, model, mesh, images, begun, console)) is not None:
                model.forms = forms
            method = choice.check(Task(config, dataset, model, mesh, console, self.on_evaluation, deadline))
            if jax.process_index() == 0:
                # from here on the folder is this experiment's
                run_folder.write_inputs(folder, config, dataset, audit_report, tune.described(forms))
            with background.verifying(dataset.unverified if jax.process_index() == 0 else None) as verification:
                with shared_features.on_all_hosts():
                    trained = method.train(folder)
                if verification is not None and jax.process_count() == 1:  # other processes wait in the evaluation, and not for long
                    verification.wait(console)
            if dataset.unverified is not None and jax.process_index() == 0:
                dataset, audit_report = late_audit.looked_at(dataset, config)
                run_folder.write_audit(folder, dataset, audit_report)
                _tell_quarantine(dataset, console)
                for remark in late_audit.remarks(audit_report):
                    console.print(f"[yellow]{remark}[/]", highlight=False)
            if prepared.scenes is not None and prepared.scenes.why and jax.process_index() == 0:
                scenes_page.write(folder / scenes_page.PAGE, prepared.loaded, prepared.scenes, console)
            with shared_features.on_all_hosts():
                results, predictions = results_lib.score(config, dataset, trained, audit_report)
            results["selection"] = run_folder.selection(folder)
            if jax.process_index() == 0:
                files.write_text(folder / "predictions.csv", predictions.to_csv(index=False))
                sound, loaded = late_audit.verified(dataset), late_audit.verified(prepared.loaded)
                last = previous.compare_with_previous(folder, results) if config.eval.explain else None
                also = [*last["mended"], *last["broken"]] if last else []
                samples.save(folder, loaded, predictions, audit_report, also)  # also pictures of the copies that were dropped
                explain.explain_mistakes(folder, config, sound, trained, results, predictions, console)
                explain.map_evaluated(folder, config, sound, trained, predictions, console)
                kept = open_set.of_training(config, model, sound, trained)
                open_set.write(kept, folder)
                results["open_set"] = kept.about if kept else None
                files.write_json(folder / "results.json", results)
                from imgclf.reporting import report  # a second to import: its charts are drawn when all else is done

                page = report.write_report(folder)
                console.print(f"\n[bold]{metrics.headline(results)}[/]", highlight=False)
                console.print(f"Report: {page}", highlight=False, soft_wrap=True)
            return results


def check(config: Config, dataset: Dataset | None = None) -> Config:
    """Makes every check that needs no image; returns a copy of the config in which stands what `train.method` asks of other fields.

    Args:
      config: the whole config.
      dataset: what is trained on, where it is not what `config.data` names.

    Raises:
      UserError: for what is found.
    """
    if dataset is None:
        checks.check_data_path(config)
    return resolve.check(config)


def describe_data(dataset: Dataset, audit_report: dict[str, Any] | None, console: Console) -> None:
    """Tells of images, classes and splits, and of what was left out or corrected; without a report of the audit, not of what it dropped."""
    sizes = dataset.table["split"].value_counts()
    splits = ", ".join(f"{sizes[name]} {name}" for name in ("train", "val", "test") if name in sizes)
    console.print(f"Data: {len(dataset.table)} images of {len(dataset.class_names)} classes ({splits}).", highlight=False)
    if dataset.unverified is not None:
        console.print("They are verified in the background (config.data.verify), while training goes on.", highlight=False)
    _tell_quarantine(dataset, console)
    if (relabeled := results_lib.relabeled(dataset)) > 0:
        console.print(f"{formatting.count(relabeled, 'label')} corrected by config.data.label_patch.", highlight=False)
    if dataset.ignored:
        ignored = ", ".join(f"{count} {kind}" for kind, count in dataset.ignored.items())
        console.print(f"Ignored {ignored}.", highlight=False)
    for note in dataset.notes:
        console.print(note, highlight=False, markup=False)
    if audit_report is not None and audit_report["dropped"]:
        console.print(
            f"[yellow]Dropped {formatting.count(len(audit_report['dropped']), 'copy', 'copies')} of evaluation images; see audit.json.[/]",
            highlight=False,
        )


def _tell_quarantine(dataset: Dataset, console: Console) -> None:
    if len(dataset.quarantine):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.quarantine["reason"].value_counts().items())
        console.print(
            f"[yellow]Quarantined {formatting.count(len(dataset.quarantine), 'file')} ({reasons}); see quarantine.csv.[/]", highlight=False
        )
