"""The routes, asked as clients ask them, of a real model."""

import asyncio
import base64
import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from imgclf.serving import server
from imgclf.serving.answers import Explanation, ModelCard, Prediction
from imgclf.serving.app import AppOptions


def posted(serving, files, path="/predict", **options):
    return serving.client.post(path, files=[("image", item) for item in files.items()], **options)


def test_an_answer_equals_that_of_predict(serving, files):
    """To the bit: the same decoding, the same compiled program at the same shape, the same calibration."""
    expected = serving.classifier.predict(list(files.values()), top_k=3, batch_size=1, conformal=True)
    for (name, data), (_, row) in zip(files.items(), expected.iterrows(), strict=True):
        answer = posted(serving, {name: data}).json()["images"][0]
        assert (answer["name"], answer["predicted"], answer["reason"]) == (name, row["predicted"], "")
        assert [entry["class"] for entry in answer["top"]] == [row[f"top{k}"] for k in (1, 2, 3)]
        told = np.array([entry["probability"] for entry in answer["top"]], np.float32)
        assert np.array_equal(told, np.array([row[f"top{k}_probability"] for k in (1, 2, 3)], np.float32))
        assert answer["set"] == row["set"]
        assert np.float32(answer["none_of_these"]) == np.float32(row["none_of_these"])


def test_a_damaged_image_has_its_reason_and_the_others_are_answered(serving, files):
    whole = files["a.jpg"]
    answer = posted(serving, {"a.jpg": whole, "half.jpg": whole[: len(whole) // 2], "text.jpg": b"no picture"})
    assert answer.status_code == 200
    said = Prediction.model_validate(answer.json()).images
    assert [image.name for image in said] == ["a.jpg", "half.jpg", "text.jpg"]
    assert said[0].predicted
    assert [image.reason.partition(":")[0] for image in said] == ["", "truncated", "not_an_image"]
    assert said[1].predicted is said[1].top is said[1].set is None


def test_only_damaged_images_are_422(serving, files):
    answer = posted(serving, {"half.png": files["b.png"][:100]})
    assert answer.status_code == 422
    assert answer.json()["images"][0]["reason"].startswith("truncated")


def test_a_raw_body_is_one_image(serving, files):
    by_file = posted(serving, {"c": files["c.webp"]}).json()
    for kind in ("image/webp", "application/octet-stream", "application/x-www-form-urlencoded"):
        answer = serving.client.post("/predict", content=files["c.webp"], headers={"content-type": kind})
        assert answer.json()["images"][0]["top"] == by_file["images"][0]["top"]


def test_a_parameter_that_there_is_not_is_named_with_those_that_there_are(serving, files):
    answer = posted(serving, {"a.jpg": files["a.jpg"]}, params={"topk": 1})
    assert answer.status_code == 422
    assert answer.json()["error"] == "There is no parameter 'topk'; the known ones are 'top_k', 'threshold'."
    assert posted(serving, {"a.jpg": files["a.jpg"]}, "/explain", params={"name": "red"}).status_code == 422
    assert serving.client.get("/healthz", params={"probe": 1}).status_code == 200


def test_top_k_and_the_threshold(serving, files):
    answer = posted(serving, {"a.jpg": files["a.jpg"]}, params={"top_k": 1, "threshold": 1}).json()["images"][0]
    assert len(answer["top"]) == 1
    assert answer["answer"] == ("unknown" if answer["probability"] < 1 else answer["predicted"])
    for params, told in (({"top_k": 0}, "top_k"), ({"threshold": "nan"}, "threshold"), ({"threshold": 2}, "threshold")):
        answer = posted(serving, {"a.jpg": files["a.jpg"]}, params=params)
        assert answer.status_code == 422
        assert told in answer.json()["error"]


def test_models_by_name(serving, files):
    assert posted(serving, {"a": files["a.jpg"]}, "/models/other/predict").json()["model"] == "other"
    assert posted(serving, {"a": files["a.jpg"]}).json()["model"] == "colors"
    answer = posted(serving, {"a": files["a.jpg"]}, "/models/color/predict")
    assert (answer.status_code, answer.json()["error"]) == (404, "There is no model 'color'; did you mean 'colors'?")
    cards = [ModelCard.model_validate(card) for card in serving.client.get("/models").json()]
    assert [(card.name, card.engine, card.ready, card.classes) for card in cards] == [
        (name, "jax", True, ["blue", "green", "red"]) for name in ("colors", "other")
    ]
    for path in ("/models/..%2Fcolors", "/models/%2Fetc%2Fpasswd/predict", "/models/../../etc/passwd"):
        assert serving.client.get(path).status_code in (404, 405)


@pytest.mark.parametrize(
    ("body", "kind", "status", "told"),
    [
        (b"", "image/jpeg", 422, "holds no image"),
        (b"{}", "application/json", 415, "send multipart/form-data"),
        (b"x", "multipart/form-data", 400, "boundary"),
        (b"x", "multipart/form-data; boundary=b", 400, "damaged"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b", 400, "name"),
        (
            b'--b\r\nContent-Disposition: form-data; name="i"; filename="i"\r\n\r\nx',
            "multipart/form-data; boundary=b",
            400,
            "last boundary",
        ),
        (b'--b\r\nContent-Disposition: form-data; name="i"\r\n\r\nx\r\n--b--\r\n', "multipart/form-data; boundary=b", 422, "no image"),
        (b"x" * 60_001, "image/jpeg", 413, "larger than 0.06 MB"),
        (b"x" * 20_001, "image/jpeg", 413, "more than 0.02 MB"),
    ],
)
def test_bodies_that_are_refused(serving, body, kind, status, told):
    answer = serving.client.post("/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert told in answer.json()["error"]


def test_a_body_whose_length_is_not_announced_is_limited_too(serving):
    answer = serving.client.post("/predict", content=(b"x" * 1000 for _ in range(100)), headers={"content-type": "image/jpeg"})
    assert answer.status_code == 413


def test_too_many_images_and_too_many_pixels(serving, files):
    assert posted(serving, files).status_code == 413
    bomb = io.BytesIO()
    Image.new("L", (3000, 3000)).save(bomb, "PNG", optimize=True)
    assert len(bomb.getvalue()) < 20_000  # 9 megapixels in a few kilobytes
    reason = serving.client.post("/predict", content=bomb.getvalue(), headers={"content-type": "image/png"}).json()["images"][0]["reason"]
    assert reason == "too_many_pixels: 3000x3000 = 9,000,000 pixels, more than 40,000"
    scans = files["a.jpg"][:-2] + b"\xff\xda" * 300 + b"\xff\xd9"
    assert "scans" in posted(serving, {"scans.jpg": scans}).json()["images"][0]["reason"]


def test_a_slow_body_is_refused(serving):
    """Its bytes come at less than LIMITS.bytes_per_second; asked below HTTP, so that no connection buffers them."""
    answer = asyncio.run(_asked(serving.client.app, b"x" * 10, pause=0.1))
    assert answer[0]["status"] == 408
    assert b"close" in dict(answer[0]["headers"])[b"connection"]


async def _asked(app: FastAPI, chunk: bytes, pause: float) -> list:
    sent = []

    async def receive():
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"", "root_path": ""}
    scope |= {
        "headers": [(b"content-type", b"image/jpeg")],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("h", 80),
        "client": ("c", 1),
    }
    await app(scope, receive, send)
    return sent


def test_an_explanation_shows_the_view_the_heat_and_the_nearest_training_pictures(serving, files):
    answer = posted(serving, {"a.jpg": files["a.jpg"], "x": b"x"}, "/explain", params={"class": "red"})
    explained, unread = (Explanation.model_validate(one) for one in answer.json())
    assert (explained.name, explained.class_name, unread.class_name) == ("a.jpg", "red", None)
    assert unread.reason.startswith("not_an_image")
    view = Image.open(io.BytesIO(base64.b64decode(explained.view.partition(",")[2])))
    assert np.array_equal(np.asarray(view.convert("RGB")), serving.classifier.view(files["a.jpg"]))  # small ones are kept exactly
    similarity = [one.similarity for one in explained.neighbours]
    assert similarity == sorted(similarity, reverse=True)
    assert all(one.picture.startswith("data:image/webp") for one in explained.neighbours)
    known = serving.classifier.folder / "dataset.parquet"
    classes = pd.read_parquet(known).set_index("id")["class_name"]
    assert [classes[one.id] for one in explained.neighbours] == [one.class_name for one in explained.neighbours]
    answer = posted(serving, {"a.jpg": files["a.jpg"]}, "/explain", params={"class": "rad"})
    assert (answer.status_code, answer.json()["error"]) == (404, "colors knows no class 'rad'; did you mean 'red'?")


def test_a_training_picture_is_its_own_nearest_neighbour(serving):
    rows = pd.read_parquet(serving.classifier.folder / "dataset.parquet")
    row = rows[rows["split"] == "train"].iloc[7]
    (explained,) = posted(serving, {"it": (Path(row["source"]) / row["id"]).read_bytes()}, "/explain").json()
    first = explained["neighbours"][0]
    assert (first["id"], first["similarity"]) == (row["id"], pytest.approx(1, abs=1e-3))


def test_health_and_metrics(serving, files):
    assert serving.client.get("/healthz").text == "ok\n"

    def counted(pattern):
        found = re.search(rf"^{pattern} (\S+)$", serving.client.get("/metrics").text, re.MULTILINE)
        return float(found.group(1)) if found else 0.0

    names = {
        'imgclf_requests_total{route="/predict",status="200"}': 1,
        'imgclf_images_total{model="colors",outcome="answered"}': 2,
        'imgclf_images_total{model="colors",outcome="unread"}': 1,
        'imgclf_batch_images_sum{model="colors"}': 2,
        'imgclf_request_seconds_count{route="/predict"}': 1,
    }
    before = {name: counted(re.escape(name)) for name in names}
    posted(serving, {"a": files["a.jpg"], "b": files["b.png"], "c": b"x"})
    assert {name: counted(re.escape(name)) - before[name] for name in names} == names
    assert counted(re.escape('imgclf_queue_images{model="colors"}')) == 0
    serving.client.get("/never/heard/of")
    assert "heard" not in serving.client.get("/metrics").text  # no client makes time series


def test_the_page_needs_nothing_else_and_runs_only_its_own_script(serving):
    answer = serving.client.get("/")
    policy = answer.headers["content-security-policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|https?://(?!www\.w3\.org/)|@import|url\(""", answer.text)
    assert not re.findall(r"\son\w+=|\sstyle=", answer.text)  # the policy would stop them


def test_openapi_describes_what_is_sent(serving):
    schema = serving.client.get("/openapi.json").json()
    assert set(schema["paths"]) >= {"/predict", "/models/{name}/predict", "/models", "/healthz", "/readyz", "/metrics"}
    assert "multipart/form-data" in schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert "securitySchemes" not in schema["components"]
    assert serving.client.get("/docs").status_code == 404  # its scripts come from elsewhere


def test_a_token_is_asked_for(color_classifier, files):
    classifier, _ = color_classifier
    options = AppOptions(token="sécret", cors=("https://example.org",), threshold=1.0)
    app = server.build([str(classifier.folder)], options, max_batch=1)
    image = {"image": files["a.jpg"]}
    with TestClient(app) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sécret".encode()}, {"authorization": "Bearer"}):
            answer = client.post("/predict", files=image, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/models", "/metrics"):
            assert client.get(path).status_code == 401
        assert client.get("/healthz").status_code == client.get("/").status_code == 200
        headers = {"authorization": "Bearer sécret".encode(), "origin": "https://example.org"}
        while (answer := client.post("/predict", files=image, headers=headers)).status_code == 503:
            assert answer.headers["retry-after"]
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        before = app.state.handlers.first.batcher
        name = classifier.folder.name
        assert client.post(f"/models/{name}/reload", headers=headers).json()["ready"]
        assert app.state.handlers.first.batcher is not before
        again = client.post("/predict", files=image, headers=headers).json()
        assert again == answer.json()
        assert "HTTPBearer" in json.dumps(client.get("/openapi.json").json()["components"]["securitySchemes"])


def test_without_a_token_nothing_reloads_and_no_other_page_may_ask(serving):
    assert serving.client.post("/models/colors/reload").status_code == 403
    assert "access-control-allow-origin" not in serving.client.get("/models", headers={"origin": "https://example.org"}).headers
