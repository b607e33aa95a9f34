"""What the documents name exists: files, modules, config fields, commands and their options."""

import ast
import functools
import importlib
import importlib.util
import io
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest
import typer.main
import warm_start

import imgclf
from imgclf import config
from imgclf.cli import run_py
from imgclf.cli.commands import app
from imgclf.config import names
from imgclf.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
GENERATED = {
    ROOT / "docs" / "reference" / name for name in ("configuration.md", "commands.md")
}  # by docs/reference_pages.py, for a built site
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "experiments" / "README.md"),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path not in GENERATED),
]
FLAGS = {option for parameter in typer.main.get_command(run_py.app).params for option in parameter.opts}
TOPS = ("imgclf", "configs", "deployment", "docs", "experiments", "tests", ".ci")
FILES = {path.name for top in (ROOT, *map(ROOT.joinpath, TOPS)) for path in (top.glob("*.py") if top == ROOT else top.rglob("*.py"))}
OTHERS = {  # files that are not ours: the reader's own, Google's retrain.py, the PyTorch sides of benchmarks, ImageNet-C's, a client's
    *("flips.py", "my_model.py", "my_optimizer.py", "my_source.py", "my_study.py", "my_config.py"),
    *("retrain.py", "make_imagenet_c.py"),
    *("hf_api.py", "lfs.py", "file_download.py"),
}
NO_ATTRIBUTES = {
    "csv",
    "css",
    "html",
    "ico",
    "j2",
    "jpg",
    "js",
    "json",
    "jsonl",
    "lock",
    "npy",
    "npz",
    "parquet",
    "png",
    "py",
    "safetensors",
    "sh",
    "svg",
    "txt",
}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "imgclf").rglob("*.py"))
    if path.stem != "__init__" and path.parent.name != "cli"
]
FIELDS = set(config.flatten(config.default_config()))


def prose(path: Path) -> str:
    """A Python file's comments and docstrings; of what isn't a test, all its texts, as users read those in messages."""
    source = path.read_text(encoding="utf-8")
    comments = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type == tokenize.COMMENT]
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    is_test = path.is_relative_to(ROOT / "tests")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented):
            comments.append(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not is_test:
            comments.append(node.value)
    return "\n".join(comments)


@functools.cache  # not read where this file is imported: every worker imports it, and one runs its tests
def texts() -> dict[str, str]:
    """Everything that a reader may take at its word: the pages, and the docstrings and comments of all Python files."""
    found = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    for path in [
        ROOT / "run.py",
        *(path for top in ("imgclf", "configs", "experiments", "docs", "tests") for path in (ROOT / top).rglob("*.py")),
    ]:
        found[path.relative_to(ROOT).as_posix()] = prose(path)
    return dict(sorted(found.items()))


pages = pytest.mark.parametrize("name", sorted(path.relative_to(ROOT).as_posix() for path in PAGES))


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[list[str]]:
    """The commands in a page's sh and bash blocks, as words; their comments are left out, and what follows a pipe, "&&" or ";"."""
    lines = []
    for block in code_blocks(text, "sh") + code_blocks(text, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words: list[str] = []
            for word in [*lexer, ";"]:
                if set(word) <= set("|&;<>()"):
                    lines.append(words)
                    words = []
                else:
                    words.append(word)
    return [words for words in lines if words]


def found_in_texts(pattern: str) -> list[tuple[str, str]]:
    """(file, what the pattern finds in its text)."""
    return [(name, found) for name, text in texts().items() for found in re.findall(pattern, text)]


def test_the_reference_says_what_every_field_means(root, monkeypatch):
    """A field's meaning is the comment beside it; docs/reference_pages.py makes the site's table of them."""
    monkeypatch.syspath_prepend(str(root / "docs"))
    rows = re.findall(r"^\| `([\w.]+)` \| `.*` \| (.*) \|$", importlib.import_module("reference_pages").configuration(), flags=re.MULTILINE)
    assert {name for name, _ in rows} == FIELDS
    assert [name for name, meaning in rows if not meaning] == []


@pages
def test_links_lead_to_files(name):
    for target in re.findall(r"\]\(([^)]+)\)", texts()[name]):
        if not target.startswith(("http://", "https://", "#")):
            assert (ROOT / name).parent.joinpath(target.partition("#")[0]).exists(), target


def test_paths_exist():
    tops = "|".join(map(re.escape, TOPS))
    paths = found_in_texts(rf"(?<![\w./~-])((?:{tops})/[\w./-]*\w/?|run\.py\b)")
    assert len(paths) > 100
    assert [(name, path) for name, path in paths if not (ROOT / path).exists() and not path.endswith(("NAME.py", "all_cnn.py"))] == []


def test_python_files_exist_by_their_names():
    files = found_in_texts(r"(?<![\w./{}:-])([a-z]\w*\.py)\b(?!\()")
    assert len(files) > 50
    assert [(name, file) for name, file in files if file not in FILES | OTHERS] == []


def test_functions_named_after_their_module_exist():
    """A function that is written after its module is looked for in every module of that name."""
    missing = []
    for name, written in found_in_texts(r"(?<![\w./])`([a-z_]+\.[A-Za-z_]\w*)"):
        stem, _, attribute = written.partition(".")
        homes = [module for module in MODULES if module.rpartition(".")[2] == stem]
        if stem in ("classifier", "dataset", "tfds", "timm") or attribute in NO_ATTRIBUTES or written in FIELDS:
            continue
        if homes and not any(hasattr(importlib.import_module(home), attribute) for home in homes):
            missing.append((name, written))
    assert missing == []


def test_modules_and_their_attributes_exist():
    missing = []
    for name, dotted in found_in_texts(r"(?<![\w./-])imgclf(?:\.[A-Za-z_]\w*)+"):
        if dotted == "imgclf.sources":  # a group of entry points
            continue
        try:
            pkgutil.resolve_name(dotted)
        except (ImportError, AttributeError) as error:
            missing.append((name, dotted, str(error)))
    assert missing == []


def test_config_fields_exist():
    missing = []
    for name, field in found_in_texts(r"(?:--config\.|--set[ =]|\bconfig\.)([a-z_0-9]+(?:\.[a-z_0-9]+)+)"):
        if field == "augment.median":  # docs/extending.md adds it
            continue
        try:
            names.check_field(field)
        except UserError as error:
            if "is a group of fields" not in str(error):
                missing.append((name, field, str(error)))
    assert missing == []


@pages
def test_commands_are_understood(name):
    """By the parser of the command line itself: those of blocks whole, those in a sentence as far as they go."""
    written = [(words, True) for words in command_lines(texts()[name])]
    written += [(shlex.split(line), False) for line in re.findall(r"`(imgclf [^`]+)`", texts()[name])]
    for words, whole in written:
        if words[0] != "imgclf" or "…" in words:
            continue
        command, rest = typer.main.get_command(app), words[1:]
        while rest and rest[0] in getattr(command, "commands", ()):
            command, rest = command.commands[rest[0]], rest[1:]
        assert not hasattr(command, "commands") or not (rest or whole), f"{words}: which command?"
        if not hasattr(command, "commands"):
            problem = why_not(command, rest)
            assert problem is None or (type(problem).__name__ == "MissingParameter" and not whole), f"{words}: {problem}"


def why_not(command, rest: list[str]) -> Exception | None:
    """Why a command's parser refuses these words."""
    given = [word.strip("[]").replace("://", "-") for word in rest if word != "--help"]  # [--of a choice]; no URL is looked at
    try:
        command.make_context("imgclf", given)
    except Exception as error:
        return error
    return None


@pages
def test_flags_of_run_py_exist(name):
    for words in command_lines(texts()[name]):
        if "run.py" in words:
            for word in words[words.index("run.py") + 1 :]:
                flag = word.partition("=")[0]
                if flag.startswith("--") and flag != "--config" and not flag.startswith("--config."):
                    assert flag in FLAGS, f"{words}: {word}"


@pages
def test_python_examples_are_valid_and_import_what_exists(name):
    for block in code_blocks(texts()[name], "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("imgclf"):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}"), ast.unparse(node)


def test_one_version_and_its_date_stand_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    version = re.search(r"^version: (\S+)$", citation, flags=re.MULTILINE)
    date = re.search(r'^date-released: "([\d-]+)"$', citation, flags=re.MULTILINE)
    assert version
    assert date
    released = re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert released[0] == (version[1], date[1])
    assert version[1] == imgclf.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("version", version[1]) == version[1]


def examples() -> dict[str, str]:
    """The sections of docs/extending.md by their titles."""
    sections = re.split(r"^## (.+)\n", (ROOT / "docs" / "extending.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2], strict=True))


def apply_diff(block: str, folder: Path) -> None:
    """Changes the file that a block's first line names: what stands there with "-" or " " becomes what stands there with "+" or " "."""
    head, *lines = block.splitlines(keepends=True)
    path = folder / head.removeprefix("--- ").strip()
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text()
    assert text.count(before) == 1, before
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("title", examples())
def test_examples_of_extending_run(title, tmp_path):
    """The files of a section, each named in its first line, and its commands: a few steps, on the digits."""
    section = examples()[title]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    changes = code_blocks(section, "diff")
    if changes:  # to a copy of the package, which a process of its own imports
        shutil.copytree(ROOT / "imgclf", tmp_path / "imgclf")  # with what Python has compiled: the files keep their times
        shutil.copy(ROOT / "run.py", tmp_path)
    for block in code_blocks(section, "python"):
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block)
    for block in changes:
        apply_diff(block, tmp_path)
    commands = [words for words in command_lines(section) if words[:2] == ["imgclf", "train"]]
    assert commands
    for number, words in enumerate(commands):
        few = [f"--workdir=run{number}", "--config.train.duration=3 steps", "--config.loader.threads=1", "--config.data.image_size=(8, 8)"]
        few.append("--config.eval.explain=0")
        if changes:
            done = subprocess.run([sys.executable, "run.py", *words[2:], *few], cwd=tmp_path, capture_output=True, text=True)
            code, said = done.returncode, done.stdout + done.stderr
        else:
            code, said = warm_start.call([*words[2:], *few], tmp_path)
        assert code == 0, said
        assert json.loads((tmp_path / f"run{number}" / "results.json").read_text())["steps"] == 3
