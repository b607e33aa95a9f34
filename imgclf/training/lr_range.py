"""What a sweep of learning rates says: the rate rises exponentially over training steps, and where the loss falls best is a good one.

Smith, 2017 (https://arxiv.org/abs/1506.01186), section 3.3; the smoothing, the limits and the suggestions are those of fastai 2.
"""

import dataclasses

import numpy as np

BETA = 0.98  # of the loss's moving average
MIN_STEPS = 20  # below, a sweep shows nothing: neither that the loss falls nor that it diverges
DIVERGED = 4.0  # times its lowest value so far: the sweep ends
TOLERATED = 0.1  # a loss below this has not diverged, however low its lowest value was: four times nearly nothing is nearly nothing
NEARLY_PERFECT = 0.01  # a loss at the beginning at which the true class has a probability of 99 %


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Learning rates, the losses of their steps, and those losses smoothed; float64 [N] each."""

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool  # ended before its last step
    probed: bool = False  # it began with the head of a probe

    @property
    def remark(self) -> str:
        """What the user should know before they follow a suggestion; "" = nothing."""
        start = self.smoothed[: MIN_STEPS // 2]  # steps of rates so low that they change nothing
        if self.probed and len(start) and start[-1] < NEARLY_PERFECT:
            return f"The probe is already nearly perfect (training loss {start[-1]:.2g}): fine-tuning has nothing to gain here."
        return ""


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """Learning rates that a sweep speaks for; None where its loss never falls.

    Attributes:
      valley: about the middle of the longest descent; a good peak for training, and what is suggested.
      steepest: where the loss falls fastest, over a tenth of the sweep.
      minimum: a tenth of that of the lowest loss; beyond it training is at its edge.
    """

    valley: float | None
    steepest: float | None
    minimum: float | None


class LossCurve:
    """The losses of a sweep while it goes on."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self._average = 0.0

    def add(self, loss: float) -> None:
        self._average = BETA * self._average + (1 - BETA) * loss
        self.losses.append(loss)
        self.smoothed.append(self._average / (1 - BETA ** len(self.losses)))

    def has_diverged(self) -> bool:
        """Whether the smoothed loss is four times its lowest value, at a height and after a number of steps that mean something."""
        return len(self.losses) >= MIN_STEPS and self.smoothed[-1] > max(DIVERGED * min(self.smoothed), TOLERATED)

    def sweep(self, learning_rates: list[float], steps: int, *, probed: bool) -> Sweep:
        """The sweep that was to take `steps` steps, with the rates of those that it took."""
        losses, smoothed = np.array(self.losses), np.array(self.smoothed)
        return Sweep(np.array(learning_rates), losses, smoothed, diverged=len(losses) < steps, probed=probed)


def suggest(found: Sweep, steps: int) -> Suggestion:
    """Reads learning rates off a sweep that was to take `steps` steps; its first tenth and its last five steps don't count."""
    kept = slice(steps // 10, -5)
    rates, losses = found.learning_rates[kept], found.smoothed[kept]
    if len(rates) < 3 or losses.min() >= losses[0]:
        return Suggestion(None, None, None)
    span = max(1, len(rates) // 10)  # of single steps the steepest is one of noise
    slopes = (losses[span:] - losses[:-span]) / np.log(rates[span:] / rates[:-span])
    start, length = _longest_descent(losses)
    return Suggestion(
        valley=float(rates[start + length // 2]),
        steepest=float(rates[slopes.argmin() + span // 2]),
        minimum=float(rates[losses.argmin()]) / 10,
    )


def _longest_descent(losses: np.ndarray) -> tuple[int, int]:
    """Start and length of the valley: the longest falling subsequence, taken, as in fastai, for so many steps up to its end."""
    lengths = np.ones(len(losses), np.int64)
    for i in range(1, len(losses)):
        higher = losses[:i] > losses[i]
        lengths[i] = 1 + lengths[:i][higher].max(initial=0)
    end = int(lengths.argmax())
    return max(0, end - int(lengths[end])), int(lengths[end])
