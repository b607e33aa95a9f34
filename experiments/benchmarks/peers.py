"""Ours and a peer's command in turn, each in a process of its own: machines change their speed by the minute, ratios of pairs don't."""

import re
import shlex
import statistics
import subprocess


def rate(command: list[str], pattern: str) -> float:
    """Runs a command and returns the images/s that `pattern`'s group finds in what it prints."""
    ended = subprocess.run(command, check=False, text=True, capture_output=True)
    output = ended.stdout
    if ended.returncode:
        raise SystemExit(f"{shlex.join(command)} ended with {ended.returncode}:\n{output}{ended.stderr[-3000:]}")
    found = re.search(pattern, output)
    if not found:
        raise SystemExit(f"{shlex.join(command)} printed nothing like {pattern!r}, but:\n{output}")
    return float(found[1])


def alternate(ours: list[str], peer: str, pairs: int, pattern: str) -> None:
    """Prints the images/s of both, pair by pair, and the median of the ratios with its range."""
    ratios = []
    for pair in range(1, pairs + 1):
        mine, peers = rate(ours, pattern), rate(shlex.split(peer), pattern)
        ratios.append(mine / peers)
        print(f"pair {pair}: imgclf {mine:.1f} img/s, peer {peers:.1f} img/s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
