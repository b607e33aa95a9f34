"""SLURM runs the script that the documents give: its time limit stops a training of two tasks, which is queued again and goes on."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several_hosts
import slurm_cluster
from digits_experiment import digits_config

from imgclf import config as config_lib
from imgclf.workflows import run_folder

STEPS = 100_000  # more than fit before the time limit, on any machine


def script_of(root: Path) -> Path:
    return root / "deployment" / "slurm" / "train.sbatch"


def test_bash_reads_the_script(root):
    subprocess.run(["bash", "-n", script_of(root)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing())
def test_a_training_that_meets_the_time_limit_is_queued_again_and_ends_with_the_same_bits(root, tmp_path):
    changes = {"train.duration": f"{STEPS} steps", "train.eval_every": f"{STEPS} steps", "train.checkpoint_every": f"{STEPS} steps"}
    config_file = tmp_path / "config.json"
    config = digits_config(**changes, **{"loader.batch_size": 16, "train.log_every": "50 steps"})
    config_file.write_text(config_lib.to_json(config))
    run, output, folder = tmp_path / "run", tmp_path / "output.txt", tmp_path / "slurm"
    folder.mkdir()
    with slurm_cluster.running(folder) as environment:
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}

        def slurm(*command: str | Path) -> str:
            return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, cwd=tmp_path).stdout

        def job() -> dict[str, str]:
            shown = slurm("scontrol", "show", "job", number)
            return dict(re.findall(r"(\w+)=(\S*)", shown))

        size = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1", "--time=60", "--signal=TERM@60"]
        script = [script_of(root), config_file, f"--workdir={run}"]
        assert (
            "to start at"
            in subprocess.run(["sbatch", "--test-only", *size, *script], env=environment, check=True, capture_output=True, text=True).stderr
        )
        number = slurm("sbatch", "--parsable", *size, f"--output={output}", *script).strip()
        wait(lambda: last_step(run) >= 200, output)
        minutes = int(job()["RunTime"].split(":")[1]) + 1
        slurm("scontrol", "update", f"JobId={number}", f"TimeLimit={minutes}")
        wait(lambda: job()["Restarts"] == "1", output)
        slurm("scontrol", "hold", number)
        stopped = re.findall(r"Stopped at step (\d+); the state is saved", output.read_text())
        config.train.stop_after = f"{int(stopped[0]) + 200} steps"  # so that the test ends
        config_file.write_text(config_lib.to_json(config))
        run_folder.write_stop(run, config.train.stop_after)
        slurm("scontrol", "update", f"JobId={number}", "TimeLimit=60")
        slurm("scontrol", "release", number)
        wait(lambda: job()["JobState"] in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"), output)
        ended = job()
    said = output.read_text()
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), said
    assert len(stopped) == 2, said
    assert stopped[0] == stopped[1]
    assert f"Continuing from step {stopped[0]} of " in said

    straight = tmp_path / "straight"
    ended_straight = several_hosts.finish(several_hosts.start([str(config_file), f"--workdir={straight}"], tmp_path, 2), 600)
    assert [code for code, _ in ended_straight] == [0, 0], ended_straight
    sums = [json.loads((one / "results.json").read_text())["params_sha256"] for one in (run, straight)]
    assert sums[0] == sums[1]


def last_step(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return json.loads(lines[-1])["step"] if lines else 0


def wait(done, output: Path, seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, output.read_text() if output.exists() else "nothing was said"
        time.sleep(1)
