"""Which published weights to start from where the user names none: those with the best fixed features within a budget.

docs/backbones.md gives the candidates' figures with their sources.
"""

import dataclasses
import math

from imgclf.errors import UserError
from imgclf.models import registry
from imgclf.models.weights import pretrained
from imgclf.models.weights.conversion import Weights

MAX_GMACS = 6.5  # billions of multiply-adds an image: room for a ResNet-50, and for a small ViT at the size of its published linear probe


class NothingAtHand(UserError):
    """No published weights are on this machine, and none can be fetched; the message says which file to fetch, and the place for it."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """Published weights, and a sentence for the user: what they are, and why they were chosen."""

    entry: Weights
    why: str


def choose(max_gmacs: float = MAX_GMACS, *, model: str | None = None, cached_only: bool = False) -> Choice:
    """Chooses published weights for fixed features, and has their file on this machine.

        choice = choose()
        config.model.name, config.model.weights = choice.entry.model, choice.entry.name
        print(choice.why)

    It takes the first in the order of `registry.best_for_probe` that costs at most `max_gmacs`, whose licence doesn't forbid commercial
    use, and whose file is on this machine already (cached by the Hugging Face hub, or put in place by hand: see `pretrained.fetch`) or
    can be fetched now. Without a network, that is the best on this machine; what costs more than `max_gmacs` is taken if there is nothing
    else.

    Args:
      max_gmacs: the budget, in billions of multiply-adds for one image of the weights' own size.
      model: choose among the weights of this model, whatever they cost; None = among those of all models.
      cached_only: ask no network.

    Raises:
      NothingAtHand: where nothing can be had.
      UserError: for an unknown model, for one whose published weights, if there are any, forbid commercial use, and for a file that is not
        what the hub says it is.
    """
    usable = [entry for entry in registry.best_for_probe(model) if entry.commercial]
    if not usable:
        raise UserError(f"There are no published weights of {model!r} for any use: name those that you mean, or give a file, path:FILE.")
    budget = math.inf if model is not None else max_gmacs
    affordable = [entry for entry in usable if (math.inf if entry.gmacs is None else entry.gmacs) <= budget]
    missed: list[str] = []  # of those before the chosen one, why they are not at hand
    network = not cached_only
    for entry in affordable:
        if pretrained.at_hand(entry):
            return Choice(entry, _sentence(entry, max_gmacs, model, missed))
        if not entry.repo:
            continue  # nothing could fetch it
        if network:
            try:
                pretrained.fetch(entry)
                return Choice(entry, _sentence(entry, max_gmacs, model, missed))
            except pretrained.FetchError as error:
                network = error.answered
                missed.append(f"{entry.name} can't be fetched ({error.reason})")
        else:
            missed.append(f"{entry.name} is not on this machine")
    for entry in usable:
        if pretrained.at_hand(entry):
            return Choice(entry, _sentence(entry, max_gmacs, model, missed))
    wanted = next((entry for entry in affordable if entry.repo), usable[0])
    reason = f"{missed[0]}, and no other published weights are on this machine" if missed else f"{wanted.name} are not on this machine"
    raise NothingAtHand(f"{reason}: {pretrained.way_to_get(wanted)}")


def _sentence(entry: Weights, max_gmacs: float, model: str | None, missed: list[str]) -> str:
    """What was chosen, and why: the best of all, or, where better ones were missed, the best that could be had."""
    figures = [] if entry.gmacs is None else [f"{entry.gmacs:.3g} GMACs"]
    if entry.linear_probe is not None:
        figures.append(f"{entry.linear_probe:.1f} % on ImageNet by a linear probe")
    elif entry.top1 is not None:
        figures.append(f"{entry.top1:.1f} % on ImageNet")
    figures.append(f"licence {entry.licence}" if entry.licence else "no licence stated")
    of_what = f"of {model}" if model is not None else f"within {max_gmacs:g} GMACs whose licence allows commercial use"
    if entry.gmacs is not None and model is None and entry.gmacs > max_gmacs:
        of_what = f"on this machine, which has none within {max_gmacs:g} GMACs"
    chosen = f"{entry.name} ({', '.join(figures)})"
    if not missed:
        return f"{chosen}: the best published fixed features {of_what}."
    return f"{missed[0]}: {chosen} instead, the next best {of_what} at hand."
