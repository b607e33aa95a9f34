"""The server's routes."""

import asyncio
import contextlib
import dataclasses
import hmac
import importlib.metadata
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from rich.console import Console
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgclf.errors import UserError, nearest
from imgclf.serving import answers, page
from imgclf.serving.answers import Explanation, ModelCard, Prediction, Problem
from imgclf.serving.limits import Limits, Refusal
from imgclf.serving.metrics import Metrics
from imgclf.serving.served import Models, Served
from imgclf.serving.uploads import Upload, Uploads

TopK = Annotated[int, Query(ge=1, le=1000, description="How many classes to name per image.", examples=[3])]
Threshold = Annotated[
    float | None,
    Query(
        ge=0,
        le=1,
        allow_inf_nan=False,
        description='Below this probability the answer is "unknown"; default: the server\'s.',
        examples=[0.8],
    ),
]
ClassName = Annotated[str, Query(alias="class", description="The class that is explained; default: the predicted one.")]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
                    "required": ["image"],
                },
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_TEXT = {"content": {"text/plain": {"schema": {"type": "string"}}}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is damaged."},
    401: {"model": Problem, "description": "The token is missing or wrong."},
    403: {"model": Problem, "description": "The server has no token, so that it does not reload by request."},
    404: {"model": Problem, "description": "There is no such model, or it knows no such class."},
    408: {"model": Problem, "description": "The body came too slowly."},
    409: {"model": Problem, "description": "The model's state does not allow it: its engine explains nothing, or a reload failed."},
    413: {"model": Problem, "description": "The body, an image or their number is too large."},
    415: {"model": Problem, "description": "The body is of another kind."},
    422: {
        "model": Prediction | list[Explanation] | Problem,
        "description": "No image could be read, each with its reason; or a parameter is wrong.",
    },
    503: {"model": Problem, "description": "No room, or not warm yet: come back after Retry-After seconds."},
    504: {"model": Problem, "description": "It took too long."},
}


@dataclasses.dataclass(frozen=True)
class AppOptions:
    """What an app allows and adds.

    Attributes:
      token: that requests must bring, as `Authorization: Bearer TOKEN`; "" = none.
      cors: origins of pages that may ask this server from a browser.
      threshold: probability below which an answer is "unknown" where a request does not say; None = never.
      limits: see `Limits`.
    """

    token: str = ""
    cors: tuple[str, ...] = ()
    threshold: float | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)


def create_app(models: Models, options: AppOptions, metrics: Metrics, console: Console | None = None) -> FastAPI:
    """Puts the routes in front of models, which are warmed in a thread when the app starts.

    Args:
      models: not warm yet, or warm.
      options: see `AppOptions`.
      metrics: where the models' batchers count.
      console: for the progress of warming up; None = nowhere.
    """
    handlers = _Handlers(models, options, metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ending = threading.Event()

        def warm() -> None:
            for served in models.values():
                if not served.batcher.ready and not ending.is_set():
                    served.warm(console)
            for served in models.values():
                if served.engine.explainer and not ending.is_set():
                    served.engine.explainer.warm()

        warming = threading.Thread(target=warm, name="warm", daemon=True)
        warming.start()
        yield
        ending.set()
        await asyncio.to_thread(warming.join)  # a compilation that is under way at the interpreter's end would abort the process

    app = FastAPI(
        title="imgclf",
        version=importlib.metadata.version("imgclf"),
        description="Classifies images with trained classifiers: calibrated probabilities, sets with a promise, and reasons.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.handlers = handlers
    app.add_middleware(_Counted, metrics=metrics)
    if options.cors:
        app.add_middleware(CORSMiddleware, allow_origins=list(options.cors), allow_methods=["GET", "POST"], allow_headers=["authorization"])
    _add_error_handlers(app, metrics)
    _add_routes(app, handlers, [Depends(_bearer(options.token))] if options.token else [])
    return app


def _add_routes(app: FastAPI, handlers: "_Handlers", guards: Sequence[Any]) -> None:
    _add_image_routes(app, handlers, guards)
    _add_model_routes(app, handlers, guards)

    @app.get("/healthz", responses=_responses(_TEXT), response_class=Response, tags=["server"])
    async def healthz() -> Response:
        """Whether the process answers."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz", responses=_responses(_TEXT, 503), response_class=Response, tags=["server"])
    async def readyz() -> Response:
        """Whether all models are warm."""
        handlers.need_ready()
        return Response("ok\n", media_type="text/plain")

    statuses = (401,) if guards else ()

    @app.get("/metrics", dependencies=guards, responses=_responses(_TEXT, *statuses), response_class=Response, tags=["server"])
    async def metrics() -> Response:
        """Counts and times, as Prometheus reads them."""
        return Response(handlers.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return page.response()


def _add_image_routes(app: FastAPI, handlers: "_Handlers", guards: Sequence[Any]) -> None:
    statuses = (400, *((401,) if guards else ()), 408, 413, 415, 422, 503, 504)
    options: dict[str, Any] = {"dependencies": [*guards, Depends(_known_parameters)], "openapi_extra": _BODY, "tags": ["images"]}

    @app.post("/predict", responses=_responses({"model": Prediction}, *statuses), **options)
    async def predict(request: Request, top_k: TopK = 5, threshold: Threshold = None) -> Response:
        """Classifies the images of the request by the server's first model. Damaged ones have their reason; the others are answered."""
        return await handlers.predict(request, handlers.first, top_k, threshold)

    @app.post("/models/{name}/predict", responses=_responses({"model": Prediction}, 404, *statuses), **options)
    async def predict_by(request: Request, name: str, top_k: TopK = 5, threshold: Threshold = None) -> Response:
        """Classifies the images of the request by the model of this name."""
        return await handlers.predict(request, handlers.named(name), top_k, threshold)

    about = _responses({"model": list[Explanation]}, 404, 409, *statuses)

    @app.post("/explain", responses=about, **options)
    async def explain(request: Request, class_name: ClassName = "") -> Response:
        """Says what the first model looked at in each image, and which training images are most like it."""
        return await handlers.explain(request, handlers.first, class_name)

    @app.post("/models/{name}/explain", responses=about, **options)
    async def explain_by(request: Request, name: str, class_name: ClassName = "") -> Response:
        """The same of the model of this name."""
        return await handlers.explain(request, handlers.named(name), class_name)


def _add_model_routes(app: FastAPI, handlers: "_Handlers", guards: Sequence[Any]) -> None:
    statuses = (401,) if guards else ()

    @app.get("/models", dependencies=guards, responses=_responses({"model": list[ModelCard]}, *statuses), tags=["models"])
    async def models() -> Response:
        """The models, the first of which answers `/predict`."""
        return _json([handlers.card(served) for served in handlers.models.values()])

    @app.get("/models/{name}", dependencies=guards, responses=_responses({"model": ModelCard}, 404, 422, *statuses), tags=["models"])
    async def model(name: str) -> Response:
        """One model."""
        return _json(handlers.card(handlers.named(name)))

    about = _responses({"model": ModelCard}, 403, 404, 409, 422, *statuses)

    @app.post("/models/{name}/reload", dependencies=guards, responses=about, tags=["models"])
    async def reload(name: str) -> Response:
        """Reads the model's folder anew; no request is lost meanwhile. Only on a server with a token."""
        return await handlers.reload(name)


def _responses(good: dict[str, Any], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of a route's answers."""
    about: dict[int | str, dict[str, Any]] = {200: good}
    return about | {status: _PROBLEMS[status] for status in statuses}


class _Handlers:
    """What the routes do."""

    def __init__(self, models: Models, options: AppOptions, metrics: Metrics):
        self.models, self.options, self.metrics = models, options, metrics
        self._uploads = Uploads(options.limits)
        self.first = next(iter(models.values()))
        self._explaining = ThreadPoolExecutor(1, thread_name_prefix="explain")  # beside the answers, which go on
        self._explained = 0  # images that wait to be explained

    def named(self, name: str) -> Served:
        if name not in self.models:
            raise Refusal(404, "no_model", f"There is no model {name!r}; {nearest(name, self.models)}")
        return self.models[name]

    def card(self, served: Served) -> dict[str, Any]:
        sizes = served.batcher.sizes
        return answers.card(served.name, served.engine, sizes.seconds if sizes else None)

    def need_ready(self, *served: Served) -> None:
        """503 while one of these is being warmed up; without any, one of all."""
        if waiting := [one.name for one in served or self.models.values() if not one.batcher.ready]:
            raise Refusal(503, "not_ready", f"Being warmed up: {', '.join(waiting)}.", retry_after=2)

    async def predict(self, request: Request, served: Served, top_k: int, threshold: float | None) -> Response:
        """A `Prediction`; 422 where no image could be read."""
        async with self._uploads.of(request) as uploads:
            engine, found = await self._classified(served, uploads)
        threshold = self.options.threshold if threshold is None else threshold
        said = [answers.image_answer(engine, upload, one, top_k, threshold) for upload, one in zip(uploads, found, strict=True)]
        answered = answers.readable(said)
        self.metrics.images(served.name, answered, len(said) - answered)
        return _json({"model": served.name, "images": said}, 200 if answered else 422)

    async def _classified(self, served: Served, uploads: list[Upload]) -> tuple[Any, list[Any]]:
        batcher = served.batcher  # the same until the end, should another take its place meanwhile
        futures = batcher.submit([upload.data for upload in uploads])
        try:
            async with self._in_time():
                return batcher.engine, [await future for future in futures]
        finally:
            for future in futures:  # what nobody waits for any more is not computed
                future.cancel()

    async def explain(self, request: Request, served: Served, class_name: str) -> Response:
        """An `Explanation` of each image; 422 where no image could be read."""
        explainer = served.engine.explainer
        if explainer is None:
            raise Refusal(
                409, "no_explainer", f"{served.name} runs in onnxruntime, which can't say what it looked at: serve the run itself."
            )
        if class_name and class_name not in served.engine.class_names:
            raise Refusal(404, "class", f"{served.name} knows no class {class_name!r}; {nearest(class_name, served.engine.class_names)}")
        self.need_ready(served)
        async with self._uploads.of(request) as uploads:
            if self._explained + len(uploads) > self.options.limits.images:
                raise Refusal(503, "queue_full", "Other images are being explained: come back.", retry_after=2)
            self._explained += len(uploads)
            loop = asyncio.get_running_loop()
            work = [loop.run_in_executor(self._explaining, answers.explanation, explainer, upload, class_name) for upload in uploads]
            try:
                async with self._in_time():
                    said = [await one for one in work]
            finally:
                self._explained -= len(uploads)
                for one in work:
                    one.cancel()
        return _json(said, 200 if answers.readable(said) else 422)

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        seconds = self.options.limits.seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Refusal(504, "timeout", f"No answer within {seconds:g} seconds: send fewer images, or come back.") from None

    async def reload(self, name: str) -> Response:
        """The card of the model after its reload."""
        if not self.options.token:
            raise Refusal(403, "no_token", "Only a server with a token reloads by request: start it with --token, or send it SIGHUP.")
        served = self.named(name)
        try:
            await served.reload()
        except UserError as error:
            raise Refusal(409, "reload_failed", f"{served.name} stays as it was: {error}") from error
        return _json(self.card(served))


class _Counted:
    """Counts requests and their seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # the client went away

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with contextlib.suppress(ClientDisconnect):
                await self._app(scope, receive, sent)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(route, status, time.perf_counter() - started)


async def _known_parameters(request: Request) -> None:
    """Refuses a parameter that the route doesn't have, which would else be left out without a word: a slip such as `topk=3`."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    if unknown := next((name for name in request.query_params if name not in known), None):
        raise Refusal(422, "parameter", f"There is no parameter {unknown!r}; the known ones are {', '.join(map(repr, known))}.")


def _bearer(token: str) -> Any:
    scheme = HTTPBearer(auto_error=False)

    async def check(found: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> None:
        given = found.credentials.encode("latin-1") if found else b""  # the bytes of the header
        if not hmac.compare_digest(given, token.encode("utf-8", "surrogateescape")):
            raise Refusal(401, "token", "The token is missing or wrong: send it as Authorization: Bearer TOKEN.")

    return check


def _add_error_handlers(app: FastAPI, metrics: Metrics) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> Response:
        metrics.refusal(error.reason)
        headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if error.status in (401, 408, 413, 415):
            headers["Connection"] = "close"  # the rest of the body is not read
        return _problem(error.sentence, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        metrics.refusal("parameter")
        first = error.errors()[0]
        return _problem(f"The parameter {first['loc'][-1]} is wrong: {first['msg']}.", 422)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        return _problem(f"{error.detail}.", error.status_code, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return _problem(f"The server failed at this request ({type(error).__name__}); its log says more.", 500)


def _problem(sentence: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(answers.encoded({"error": sentence}), status, headers, "application/json")


def _json(content: Any, status: int = 200) -> Response:
    return Response(answers.encoded(content), status, media_type="application/json")
