"""The training methods by name."""

from imgclf.methods.base import Method, Task
from imgclf.methods.fit import Fit
from imgclf.methods.lp_ft import LpFt
from imgclf.methods.probe import Probe

METHODS: dict[str, type[Method]] = {"fit": Fit, "probe": Probe, "lp_ft": LpFt}


def check(task: Task) -> Method:
    """Checks a task by the method that its resolved config names; see `Method.check`."""
    return METHODS[task.config.train.method].check(task)
