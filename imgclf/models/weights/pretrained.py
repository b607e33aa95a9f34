"""Published weights: found by name, fetched from the Hugging Face hub or read from a file, checked and converted."""

import dataclasses
import functools
import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from flax import nnx

from imgclf.config import Config
from imgclf.errors import UserError, nearest
from imgclf.files import cache_dir
from imgclf.models import registry
from imgclf.models.backbone import Builder
from imgclf.models.weights import conversion, files
from imgclf.models.weights.conversion import IMAGENET_MEAN, IMAGENET_STD, Rule, Tree, Weights

_Shapes = Mapping[str, tuple[int, ...]]


def find(name: str, model: str) -> Weights:
    """Finds the entry of `config.model.weights`, a published name or path:FILE, for a model.

    Raises:
      UserError: for an unknown name (with the nearest ones), weights of another model, and files that can't be read.
    """
    if name.startswith("path:"):
        return _of_file(Path(name.removeprefix("path:")).expanduser(), model)
    of_model = registry.weights(model)
    known = registry.weights() | of_model
    if name not in known:
        choices = "none" if not of_model else ", ".join(map(repr, of_model))
        raise UserError(
            f"config.model.weights={name!r} are no known weights; {meant(name, [*known, 'none'])} "
            f"For config.model.name={model!r} there are {choices}; your own: path:FILE."
        )
    entry = known[name]
    if entry.model != model:
        raise UserError(f"config.model.weights={name!r} are of {entry.model!r}, not of {model!r}; set config.model.name={entry.model!r}.")
    return entry


def meant(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant by weights that aren't known: a file of this name, or the nearest names."""
    return f"those of a file are path:{name}." if os.path.isfile(os.path.expanduser(name)) else nearest(name, known)


def model_of(name: str) -> str:
    """The model that published weights belong to, or that the tensors of path:FILE look like; "" where there is none.

    Raises:
      UserError: for a file that can't be read.
    """
    if name.startswith("path:"):
        return looks_like(files.shapes(Path(name.removeprefix("path:")).expanduser()))
    known = registry.weights()
    return known[name].model if name in known else ""


def on_hub(model: str) -> Weights:
    """Returns the first of a model's published weights that the Hugging Face hub has.

    Raises:
      UserError: for an unknown model, and one without such weights.
    """
    check_name(model)
    for entry in registry.weights(model).values():
        if entry.repo:
            return entry
    raise UserError(f"The hub has no weights of {model!r}: give your own, weights=path:FILE, or one of those that `imgclf models` lists.")


def _of_file(path: Path, model: str) -> Weights:
    """Finds the layout of a file by the names of its tensors, and takes what the published weights of that layout need."""
    return _recognised(path, files.state(path), model)


@functools.lru_cache(maxsize=16)
def _recognised(path: Path, unchanged: tuple[int, int], model: str) -> Weights:
    del unchanged  # as long as it is the same, so is the answer
    shapes = files.shapes(path)
    entries = list(registry.weights(model).values())
    rules = registry.family(model).conversion
    layouts = [layout for layout in rules if layout in {entry.layout for entry in entries}] or list(rules)
    known = {layout: _known(shapes, rules[layout]) for layout in layouts}
    layout = max(known, key=known.__getitem__, default="")
    if not layout or not known[layout]:
        raise UserError(f"{path} holds none of the tensors of config.model.name={model!r}; {_way_out(shapes, model)}")
    entries = [entry for entry in entries if entry.layout == layout]
    named = [entry for entry in entries if entry.name.rsplit("/", 1)[-1] in path.name]  # the same layout with other preprocessing
    entry = next(iter(named or entries), Weights("", model, layout))
    head = converted_shapes(shapes, rules[layout]).get("head/logits/bias", (0,))
    # what the network must be and see is the published entry's: its variant, mean, std and input size
    return dataclasses.replace(
        entry, name=f"path:{path}", file=str(path), num_classes=head[0], source=entry.name, repo="", top1=None, licence=""
    )


def _known(shapes: _Shapes, rules: Sequence[Rule]) -> int:
    matches = [conversion.match(name, rules) for name in shapes]
    return sum(found is not None and found[0] is not None for found in matches)


def resolve(config: Config, num_classes: int | None = None) -> Config:
    """Returns a copy of the config in which the weights' own choices stand explicitly.

    These are `data.mean` and `data.std` where they are (); `data.resize`, `data.crop_fraction` and `data.interpolation` where resize is
    "weights" (without weights it is torchvision's: the middle 224 of 256 pixels, bilinear); `model.variant` where it is "auto"; and
    `model.head.kind` where it is "auto" and `num_classes` is given. After that the model can be built without the weights, as a trained
    run's is.

    Raises:
      UserError: as `find` does; for weights of an unknown model.
    """
    config = config.copy_and_resolve_references()
    model, entry = config.model, None
    data, open_fields = config.data, (model.variant, model.head.kind)
    if model.weights != "none" and ("auto" in open_fields or data.resize == "weights" or not data.mean or not data.std):
        check_name(model.name)
        entry = find(model.weights, model.name)
    if not data.mean:
        data.mean = entry.mean if entry else IMAGENET_MEAN
    if not data.std:
        data.std = entry.std if entry else IMAGENET_STD
    if data.resize == "weights":
        data.resize = "crop"
        data.crop_fraction, data.interpolation = (entry.crop_fraction, entry.interpolation) if entry else (0.875, "bilinear")
    if model.variant == "auto":
        model.variant = ", ".join(f"{key}={value!r}" for key, value in entry.variant.items()) if entry else ""
    if model.head.kind == "auto" and num_classes is not None and model.name != "cnn":  # cnn's own head has fields of its own
        fits = entry is not None and entry.num_classes == num_classes and model.output == "softmax" and not model.head.normalize
        model.head.kind = "family" if fits else new_head(config)
    return config


def new_head(config: Config) -> str:
    """The kind of a new head where `model.head.kind` is "auto"."""
    return "linear" if config.model.head.normalize else registry.family(config.model.name).new_head


def check_name(model: str) -> None:
    """Raises a UserError where there is no model of that name, or no builder of the user's own."""
    registry.family(model)


_OWN_FILE = "or give a file of your own as the weights, path:FILE."


class FetchError(UserError):
    """Weights that the Hugging Face hub should have can't be fetched.

    `reason` is what went wrong, in the hub's client's words; `answered` says whether the hub answered at all, so that a network is there.
    """

    def __init__(self, message: str, *, reason: str, answered: bool):
        super().__init__(message)
        self.reason, self.answered = reason, answered


def _placed(entry: Weights) -> Path:
    """Where the file of published weights lies that was put in place by hand."""
    return cache_dir() / "weights" / entry.name / entry.file


def _cached(entry: Weights) -> bool:
    """Whether the hub's own cache has the file."""
    if not entry.repo:
        return False
    import huggingface_hub

    return isinstance(huggingface_hub.try_to_load_from_cache(entry.repo, entry.file), str)


def at_hand(entry: Weights) -> bool:
    """Whether the file of published weights is on this machine: put in place by hand, or cached."""
    return _placed(entry).exists() or _cached(entry)


def way_to_get(entry: Weights) -> str:
    """Says how to come by the file of published weights without a network, or with none of the hub's."""
    placed = _placed(entry)
    if entry.repo:
        import huggingface_hub

        url = huggingface_hub.hf_hub_url(entry.repo, entry.file)
        return f"fetch {url} where there is a network, and put it at {placed}; {_OWN_FILE}"
    conversion_needed = "" if Path(entry.source).suffix == placed.suffix else f", turn it into {placed.suffix.removeprefix('.')}"
    return f"fetch {entry.source}{conversion_needed}, and put it at {placed}; {_OWN_FILE}"


def fetch(entry: Weights) -> Path:
    """Returns the file of published weights: put in place by hand, cached, or downloaded; checked against the hub's checksum.

    The hub's own settings hold: HF_HOME (cache), HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN.

    Raises:
      UserError: if it can't be had (FetchError if the hub should have it), with the file to fetch and the place to put it; or if it is not
        what the hub says it is.
    """
    if entry.name.startswith("path:"):
        return Path(entry.file)
    if _placed(entry).exists():
        return _placed(entry)
    if not entry.repo:
        raise UserError(f"{entry.name} are not on the Hugging Face hub: {way_to_get(entry)}")
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if not _cached(entry):
            # fails at once where there is no network; the download would try for half a minute
            huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(entry.repo, entry.file))
        path = Path(huggingface_hub.hf_hub_download(entry.repo, entry.file, library_name="imgclf"))
    except Exception as error:  # whatever the hub's client and its HTTP library raise: the way out is the same
        reason = re.sub(r"\s+", " ", str(error)).split(". ")[0].strip().rstrip(".")
        message = f"{entry.name} can't be fetched ({reason}): {way_to_get(entry)}"
        raise FetchError(message, reason=reason, answered=isinstance(error, HfHubHTTPError)) from error
    _check_content(path, entry)
    return path


def _check_content(path: Path, entry: Weights) -> None:
    """Compares a file with its checksum, by which the hub's cache names it: sha256 for large files, git's sha1 for small ones."""
    blob = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", blob.name):
        digest = hashlib.sha256()
    elif re.fullmatch("[0-9a-f]{40}", blob.name):
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode(), usedforsecurity=False)
    else:
        return  # a file system without links: the checks that safetensors makes remain
    with blob.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    if digest.hexdigest() != blob.name:
        raise UserError(
            f"{entry.name} are damaged or tampered with: their {digest.name} is {digest.hexdigest()}, the hub says {blob.name}; "
            f"delete {blob} to fetch them again."
        )


def load(entry: Weights, params_like: Tree, batch_stats_like: Tree, *, own_head: bool) -> tuple[Tree, Tree, str]:
    """Reads and converts weights for a model.

    Args:
      entry: what `find` returned.
      params_like, batch_stats_like: the model's, nested dicts of anything with a `shape`.
      own_head: whether the model's head is of the published kind: layers of the same shapes are loaded then.

    Returns:
      params and batch_stats, nested dicts of float32 arrays; and the prefix of the paths that they lack, because the file has no such
      tensors, or tensors of other shapes: "head/", "head/logits/" or "" (nothing is lacking).

    Raises:
      UserError: if the file can't be had, or does not fit the model; it names the model that the file looks like.
    """
    path = fetch(entry)
    tensors = files.read(path)
    rules = registry.family(entry.model).conversion[entry.layout]
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    wanted = {path: leaf.shape for path, leaf in conversion.flatten({"head": params_like["head"]}).items()}
    new = _new_part(wanted, converted_shapes(shapes, rules)) if own_head else "head/"
    try:
        return *conversion.convert(tensors, rules, params_like, batch_stats_like, left_out=new), new
    except UserError as error:
        trees = (params_like["backbone"], batch_stats_like.get("backbone", {}))
        backbone = {path: leaf.shape for tree in trees for path, leaf in conversion.flatten({"backbone": tree}).items()}
        given = converted_shapes(shapes, rules)
        # equal, as the tensors of a deeper network would include these
        fits = backbone == {path: shape for path, shape in given.items() if path.startswith("backbone/")}
        way_out = "fetch it again, or convert it to the published names." if fits else _way_out(shapes, entry.model)
        raise UserError(f"{path} does not fit config.model.name={entry.model!r}: {error}; {way_out}") from None


def _new_part(wanted: _Shapes, given: _Shapes) -> str:
    """The part of a model's head that a file lacks, or has in other shapes: "head/", its last layer "head/logits/", or "" (none)."""
    last = [path for path in wanted if path.startswith("head/logits/")]
    inner = [path for path in wanted if path not in last]
    shared = given.keys() & wanted.keys()
    others = [path for path in given if path.startswith("head/") and path not in wanted]
    if shared.intersection(last) and not others and all(given[path] == wanted[path] for path in shared):
        return ""
    return "head/logits/" if inner and all(given.get(path) == wanted[path] for path in inner) else "head/"


def converted_shapes(shapes: _Shapes, rules: Sequence[Rule]) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors after conversion, by path; tensors without a rule, or of a wrong number of axes, are left out."""
    found = {}
    for name, shape in shapes.items():
        rule = conversion.match(name, rules)
        if rule is None or rule[0] is None:
            continue
        try:
            found[rule[0]] = rule[1](np.broadcast_to(np.float32(0), shape)).shape
        except (ValueError, IndexError):  # another number of axes
            continue
    return found


def _way_out(shapes: _Shapes, model: str) -> str:
    like = looks_like(shapes)
    if like in ("", model):
        return "it looks like no weights that imgclf knows: convert it to the published names of those that `imgclf models` lists."
    return f"it looks like weights of {like!r}: set config.model.name={like!r}."


def _backbone_shapes(build: Builder) -> dict[str, tuple[int, ...]]:
    state = nnx.state(nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0))))
    return {path: leaf.shape for path, leaf in conversion.flatten({"backbone": nnx.to_pure_dict(state)}).items()}


def _has(family: registry.Family, model: str, layouts: set[str]) -> bool:
    """Whether a model has published weights of one of these layouts; without any, it may have files of any."""
    published = {entry.layout for entry in family.weights if entry.model == model}
    return bool(published & layouts if published else layouts)


def looks_like(shapes: _Shapes) -> str:
    """The model whose backbone agrees best with a file in the names and shapes of tensors; "" where there is none."""
    # A family that knows none of a few dozen tensors can't know half of all: hundreds of patterns for thousands of names take a second.
    some = dict(itertools.islice(shapes.items(), 0, None, max(1, len(shapes) // 24)))
    known = {
        (family, layout): _known(shapes, rules) if _known(some, rules) else 0
        for family in registry.families()
        for layout, rules in family.conversion.items()
    }
    most = max(known.values())
    if most < len(shapes) / 2:
        return ""
    size = sum(math.prod(shape) for shape in shapes.values())
    scores = {"": 0.5}
    for family in registry.families():  # relatives may have the same names
        layouts = {layout for layout in family.conversion if known[family, layout] == most}
        counts = {
            name: model.parameters for name, model in family.models.items() if model.parameters is not None and _has(family, name, layouts)
        }
        for model in sorted(counts, key=lambda name: abs(counts[name] - size))[:2]:  # tracing one can take a second
            wanted = set(_backbone_shapes(family.models[model].build).items())
            for layout in layouts:
                rules = family.conversion[layout]
                given = {item for item in converted_shapes(shapes, rules).items() if item[0].startswith("backbone/")}
                scores[model] = max(scores.get(model, 0.0), len(wanted & given) / len(wanted | given))
            if scores[model] == 1.0:
                return model
    return max(scores, key=scores.__getitem__)
