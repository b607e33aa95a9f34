"""LP-FT: a probe first, then training of the whole network from the probe's head.

Kumar et al., "Fine-tuning can distort pretrained features and underperform out-of-distribution", ICLR 2022.
"""

import dataclasses
from pathlib import Path

from imgclf.data.table import Dataset
from imgclf.methods import refit
from imgclf.methods.base import Task
from imgclf.methods.fit import Fit
from imgclf.methods.probe import Probe
from imgclf.training import work
from imgclf.training.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class LpFt:
    """The method "lp_ft"; `methods.base.Method`."""

    probe: Probe
    fit: Fit

    @classmethod
    def check(cls, task: Task) -> "LpFt":
        return cls(Probe.check(task), Fit.check(task))

    @property
    def task(self) -> Task:
        return self.fit.task

    def train(self, workdir: Path) -> TrainedModel:
        return refit.train(self, workdir)

    def on(self, dataset: Dataset, steps: int) -> "LpFt":
        """`refit.Refittable.on`; the probe is found anew."""
        return LpFt(Probe.check(dataclasses.replace(self.task, dataset=dataset)), self.fit.on(dataset, steps))

    def train_once(self, workdir: Path) -> TrainedModel:
        probed = self.probe.train(workdir)
        trained = self.fit.train_from(probed.params, probed.batch_stats, workdir, trained=True)
        added = {"method": "lp_ft", "probe": probed.results["probe"]}
        added |= {"train_flops": work.total(probed.progress.flops, trained.progress.flops)}
        return dataclasses.replace(trained, results=trained.results | added)
