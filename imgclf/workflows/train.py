"""One experiment: data → split and audited table → trained model → evaluation → report, all of it in the run's folder."""

from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from imgclf import files, formatting, models
from imgclf.config import Config, validation
from imgclf.data.prepare import prepare
from imgclf.data.table import Dataset
from imgclf.evaluation import metrics
from imgclf.evaluation import results as results_lib
from imgclf.methods import fit
from imgclf.models.weights import pretrained
from imgclf.reporting import report, samples
from imgclf.training import loop, optimizer, sharding
from imgclf.workflows import run_folder


def run(
    config: Config,
    workdir: Path,
    console: Console | None = None,
    dataset: Dataset | None = None,
    on_evaluation: loop.OnEvaluation | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and reports one experiment in `workdir`; continues there if it was interrupted.

    A run that had finished is evaluated and reported again, which is cheap and changes nothing.

    Args:
      config: the whole config.
      workdir: the run's folder; it is made.
      console: where to tell what happens; None = the terminal.
      dataset: taken instead of what `config.data` names. Its splits are completed as those of a source are: a missing val comes out
        of train.
      on_evaluation: told of every evaluation on val while the network trains; what it raises ends the run.

    Returns:
      the contents of `results.json`.

    Raises:
      UserError: for anything that the user can mend.
      loop.Interrupted: if training was asked to stop; its state is saved.
    """
    console = console or Console(quiet=jax.process_index() != 0, soft_wrap=True)
    config = check(config)
    with run_folder.claim(workdir):
        prepared = prepare(config, dataset)
        dataset, audit_report = prepared.dataset, prepared.audit_report
        config = pretrained.resolve(config, len(dataset.class_names))
        run_folder.check_same_experiment(config, workdir)
        run_folder.check_same_data(dataset, workdir)
        describe_data(dataset, audit_report, console)

        model = models.create(config, len(dataset.class_names), tell=console.print)
        train = fit.prepare(config, dataset, model, sharding.create_mesh(), console, on_evaluation)
        if jax.process_index() == 0:
            run_folder.write_inputs(workdir, config, dataset, audit_report)  # from here on the folder is this experiment's
        outcome = train(workdir)
        results, predictions = results_lib.score(config, dataset, outcome.fit, outcome.logits_of, audit_report)
        results |= outcome.results
        results["notes"] += outcome.notes
        if jax.process_index() == 0:
            files.write_text(workdir / "predictions.csv", predictions.to_csv(index=False))
            samples.save(workdir, prepared.loaded, predictions, audit_report)  # also pictures of the copies that were dropped
            files.write_json(workdir / "results.json", results)
            page = report.write_report(workdir)
            console.print(f"\n[bold]{metrics.headline(results)}[/]", highlight=False)
            console.print(f"Report: {page}", highlight=False, soft_wrap=True)
        return results


def check(config: Config) -> Config:
    """Makes every check that needs no data; returns a copy of the config in which stands what `train.method` asks of other fields.

    Raises:
      UserError: for what is found.
    """
    validation.validate(config)
    sharding.check_batch_size(config.loader.batch_size, "loader.batch_size")
    sharding.check_batch_size(config.loader.eval_batch_size, "loader.eval_batch_size")
    optimizer.check_optimizer(config)
    config = fit.settle(config)
    pretrained.check_name(config.model.name)
    pretrained.resolve(config)  # finds the weights, or says that they don't exist, before the data are read
    return config


def describe_data(dataset: Dataset, audit_report: dict[str, Any], console: Console) -> None:
    """Tells of images, classes and splits, and of what was left out or corrected."""
    sizes = dataset.table["split"].value_counts()
    splits = ", ".join(f"{sizes[name]} {name}" for name in ("train", "val", "test") if name in sizes)
    console.print(f"Data: {len(dataset.table)} images of {len(dataset.class_names)} classes ({splits}).", highlight=False)
    if len(dataset.quarantine):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.quarantine["reason"].value_counts().items())
        console.print(
            f"[yellow]Quarantined {formatting.count(len(dataset.quarantine), 'file')} ({reasons}); see quarantine.csv.[/]", highlight=False
        )
    if (relabeled := results_lib.relabeled(dataset)) > 0:
        console.print(f"{formatting.count(relabeled, 'label')} corrected by config.data.label_patch.", highlight=False)
    if dataset.ignored:
        ignored = ", ".join(f"{count} {kind}" for kind, count in dataset.ignored.items())
        console.print(f"Ignored {ignored}.", highlight=False)
    if audit_report["dropped"]:
        console.print(
            f"[yellow]Dropped {formatting.count(len(audit_report['dropped']), 'copy', 'copies')} of evaluation images; see audit.json.[/]",
            highlight=False,
        )
