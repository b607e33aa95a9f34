from pathlib import Path

import pytest
from digits_experiment import digits_config


@pytest.fixture(scope="session")
def straight_run(tmp_path_factory) -> tuple[Path, dict]:
    """The folder and the results of that experiment, undisturbed."""
    from imgclf.workflows import train

    folder = tmp_path_factory.mktemp("runs") / "straight"
    return folder, train.train(digits_config(), folder)
