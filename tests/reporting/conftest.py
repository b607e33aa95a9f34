"""Finished runs with their reports, and a browser."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from chromium import Browser
from written_runs import DIGITS, HOSTILE, digits_dataset, write_run

from imgclf.data.table import Dataset
from imgclf.reporting import report


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Makes a finished run's folder, all but the report."""
    return write_run


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """What the plain run is about."""
    return digits_dataset(DIGITS, "digits/{row:04d}", 1)[0]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> Path:
    """A plain run with its report; not to be changed."""
    run = write_run(tmp_path_factory.mktemp("plain") / "run", quarantined=4)
    report.write_report(run)
    return run


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory) -> Path:
    """A run whose class names and paths try to break out, with its report; not to be changed."""
    run = write_run(
        tmp_path_factory.mktemp("hostile") / "run",
        HOSTILE,
        id_format="a&b/<img src=x onerror=alert(2)>{row}'\".jpg",
        scale=25,
        quarantined=30,
    )
    report.write_report(run)
    return run


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not binary:
        pytest.skip("no chromium on PATH: pages were not tried in a browser (Debian: apt install chromium)")
    browser = Browser(binary, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
