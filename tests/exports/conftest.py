"""What the tests of exports share with those of networks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))  # random_weights.py
