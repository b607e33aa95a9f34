"""Worker processes of a script without a main guard: one sentence says what is wrong."""

import subprocess
import sys
import textwrap

from pictures import save

SCRIPT = """
    from imgclf.config import default_config
    from imgclf.data import pipeline
    from imgclf.data.prepare import prepare

    config = default_config()
    config.data.path = "photos"
    config.loader.workers, config.loader.batch_size = 1, 2
    with pipeline.train_batches(prepare(config).dataset, config) as batches:
        next(batches)
    """


def test_a_script_without_a_main_guard_is_told_so(tmp_path):
    for row in range(20):
        save(tmp_path / "photos" / ("cat", "dog")[row % 2] / f"{row}.png", row, (40, 36))
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert "it trains while it is imported: put what it does into a block that begins with  if __name__" in lines[-1]
    assert len(lines) < 12
