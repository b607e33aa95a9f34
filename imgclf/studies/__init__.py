"""Studies: arms × seeds × folds of one experiment, compared by paired statistics. A study file imports what it needs from here."""

from imgclf.studies.arms import Range, draws, grid, levels, product
from imgclf.studies.search import Search
from imgclf.studies.spec import Study

__all__ = ["Range", "Search", "Study", "draws", "grid", "levels", "product"]
