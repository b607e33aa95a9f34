"""The texts of a bundle for those who have no imgclf yet: how it is reproduced, in four lines and as a script."""

from pathlib import Path
from typing import Any

from imgclf import formatting
from imgclf.publishing import lock

SCRIPT = "reproduce.sh"


def script(about: dict[str, Any]) -> bytes:
    """The contents of reproduce.sh: an environment of its own, then the evaluation in it; its arguments go to `imgclf reproduce`."""
    python = _minor(about["python"])
    return f"""#!/bin/sh
# Makes the environment of the run anew beside this bundle, and evaluates the model in it: sh {SCRIPT} [--retrain]
# It installs {lock.FILE}, each file compared with its hash, and runs the code in source/.
set -e
cd "$(dirname "$0")"
env=${{REPRODUCE_ENV:-../{_plain(about["name"])}-env}}
python{python} -m venv "$env"
"$env/bin/python" -m pip install --require-hashes -r {lock.FILE}
"$env/bin/python" -m pip install --no-deps --no-index source/*.whl
"$env/bin/imgclf" reproduce . --no-env --trust --out "$env/../{_plain(about["name"])}-reproduced" "$@"
""".encode()


def section(about: dict[str, Any]) -> str:
    """What the bundle's README.md says of its files and of how to reproduce it, in Markdown."""
    python, source = about["python"], about["source"]
    commit = f"commit `{source['commit'][:12]}`" if source["commit"] else "as installed"
    lines = [
        "## Reproduce it",
        "",
        "```sh",
        "python -m pip install imgclf",
        f"imgclf reproduce {about['place']}             # every byte checked, the environment made anew, each prediction compared",
        f"imgclf reproduce {about['place']} --retrain   # and trained again",
        "```",
        "",
        f"Without imgclf: `sh {SCRIPT}`, with Python {_minor(python)}. Either runs the code of this bundle with your rights.",
        "",
        "## What is here",
        "",
        "| file | what it is |",
        "|---|---|",
        '| `run/` | the run\'s folder: config, results, predictions, report, audit, the kept model; `imgclf.load("run")` opens it |',
        "| `weights/model.safetensors` | the kept model's parameters and statistics |",
        f"| `data/examples.csv` | {_images(about['data'])} |",
        f"| `{lock.FILE}` | the environment: Python {python}, every package with its version and hashes |",
        f"| `source/` | imgclf {source['imgclf']}, {commit}: a wheel, its history, and the run's own modules |",
        "| `manifest.json` | every file with its size and SHA-256 |",
        "| `ro-crate-metadata.json` | the same for machines: RO-Crate |",
        "",
        *source["notes"],
    ]
    return "\n".join(lines).rstrip() + "\n"


def _images(data: dict[str, Any]) -> str:
    count = formatting.count(data["images"], "image")
    places = {
        "included": f"the {count}, which lie in `data/files/` by their SHA-256",
        "files": f"the {count} with their SHA-256; they are found at {data['base'] or 'a place that you name with `--images`'}",
        "openimages": f"the {count} with their SHA-256, and the id, address, author and licence of each photo of Open Images",
        "source": f"the {count} with their SHA-256; the run's source makes them",
    }
    return places[data["kind"]]


def _minor(python: str) -> str:
    """`3.11.9` to `3.11`."""
    return ".".join(python.split(".")[:2])


def _plain(name: str) -> str:
    """A name that needs no quotes in a shell."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(name).name) or "run"
