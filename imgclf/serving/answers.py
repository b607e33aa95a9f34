"""What a request is answered: the words of `imgclf predict`, as JSON, and their description for OpenAPI."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from imgclf.data.images import ImageError
from imgclf.deploy.predictor import UNKNOWN
from imgclf.evaluation.conformal import sets
from imgclf.serving.batching import Answer
from imgclf.serving.engines import Engine
from imgclf.serving.explainer import Explainer
from imgclf.serving.uploads import Upload


class ClassProbability(BaseModel):
    """A class and its calibrated probability."""

    model_config = ConfigDict(serialize_by_alias=True)
    class_name: str = Field(alias="class", examples=["jacket"])
    probability: float = Field(ge=0, le=1, examples=[0.94])


class ImageAnswer(BaseModel):
    """What is said of one image; all but `name` and `reason` are null where it can't be read."""

    name: str = Field(description="As the client called the file.", examples=["jacket.jpg"])
    predicted: str | None = Field(description="The likeliest class.", examples=["jacket"])
    probability: float | None = Field(description="Its calibrated probability.", examples=[0.94])
    answer: str | None = Field(description='`predicted`, or "unknown" where its probability is below the threshold.', examples=["jacket"])
    top: list[ClassProbability] | None = Field(description="The likeliest classes, the likeliest first.")
    set: list[str] | None = Field(
        description="The classes that the run's conformal rule admits; null where it has none.", examples=[["jacket"]]
    )
    none_of_these: float | None = Field(
        description="How likely so unlike an image is among images like the training images: a p-value; null where none are kept.",
        examples=[0.42],
    )
    reason: str = Field(description='Why the image can\'t be read; "" where it could.', examples=[""])


class Prediction(BaseModel):
    """The answers of a request, in the order of its images."""

    model: str = Field(examples=["photos"])
    images: list[ImageAnswer]


class Neighbour(BaseModel):
    """A training image."""

    model_config = ConfigDict(serialize_by_alias=True)
    id: str = Field(description="Its name in the run's table.", examples=["jacket/01.jpg"])
    class_name: str = Field(alias="class", examples=["jacket"])
    similarity: float = Field(description="Cosine of the features.", ge=-1.001, le=1.001, examples=[0.93])
    picture: str | None = Field(description="A thumbnail as a data URL; null where the server's machine doesn't have the image.")


class Explanation(BaseModel):
    """Why an image is answered as it is; all but `name` and `reason` are null where it can't be read."""

    model_config = ConfigDict(serialize_by_alias=True)
    name: str = Field(examples=["jacket.jpg"])
    class_name: str | None = Field(alias="class", description="That is explained.", examples=["jacket"])
    view: str | None = Field(description="What the network is shown of the image, as a data URL.")
    heat: str | None = Field(
        description="A transparent picture to lie over the view: orange speaks for the class, blue against it (HiResCAM). A data URL; null "
        "where the network's last maps have one place."
    )
    neighbours: list[Neighbour] | None = Field(description="The nearest training images; null where the run doesn't know them.")
    reason: str = Field(description='Why the image can\'t be read; "" where it could.', examples=[""])


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str = Field(examples=["The request holds no image: send one or more files, in fields of any name."])


class ModelCard(BaseModel):
    """What a model is, for those who ask it."""

    name: str = Field(examples=["photos"])
    engine: str = Field(description="jax or onnx.", examples=["jax"])
    ready: bool = Field(description="Whether it is warm.")
    classes: list[str] = Field(examples=[["jacket", "shirt"]])
    conformal_alpha: float | None = Field(description="Share of images whose set may miss the truth; null: no sets.", examples=[0.1])
    batch_sizes: dict[str, float] = Field(description="Batch size → seconds, as measured when it was warmed.", examples=[{"1": 0.012}])
    explains: bool = Field(description="Whether /explain is available.")


def image_answer(engine: Engine, upload: Upload, found: Answer | str, top_k: int, threshold: float | None) -> dict[str, Any]:
    """An `ImageAnswer` as a dict; `found` is the answer or why the image can't be read."""
    if isinstance(found, str):
        empty = dict.fromkeys(("predicted", "probability", "answer", "top", "set", "none_of_these"))
        return {"name": upload.name, **empty, "reason": found}
    names, probabilities = engine.class_names, found.probabilities
    order = np.argsort(-probabilities, kind="stable")
    top = [{"class": names[label], "probability": float(probabilities[label])} for label in order[:top_k]]
    predicted, probability = top[0]["class"], float(probabilities[order[0]])
    admitted = None
    if engine.conformal is not None:
        member = sets(probabilities[None], engine.conformal.threshold)[0]
        admitted = [names[label] for label in order if member[label]]
    return {
        "name": upload.name,
        "predicted": predicted,
        "probability": probability,
        "answer": UNKNOWN if threshold is not None and probability < threshold else predicted,
        "top": top,
        "set": admitted,
        "none_of_these": found.none_of_these,
        "reason": "",
    }


def explanation(explainer: Explainer, upload: Upload, class_name: str) -> dict[str, Any]:
    """An `Explanation` as a dict."""
    try:
        return {"name": upload.name, **explainer.explain(upload.data, class_name), "reason": ""}
    except ImageError as error:
        return {"name": upload.name, **dict.fromkeys(("class", "view", "heat", "neighbours")), "reason": str(error)}


def encoded(content: Any) -> bytes:
    """JSON in ASCII: class and file names may hold what is no valid Unicode."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def card(name: str, engine: Engine, sizes: dict[int, float] | None) -> dict[str, Any]:
    """A `ModelCard` as a dict."""
    return {
        "name": name,
        "engine": engine.name,
        "ready": sizes is not None,
        "classes": list(engine.class_names),
        "conformal_alpha": engine.conformal.alpha if engine.conformal else None,
        "batch_sizes": {str(size): round(seconds, 6) for size, seconds in (sizes or {}).items()},
        "explains": engine.explainer is not None,
    }


def readable(answers: Sequence[dict[str, Any]]) -> int:
    """How many of the images could be read."""
    return sum(not answer["reason"] for answer in answers)
