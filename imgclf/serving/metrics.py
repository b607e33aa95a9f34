"""What a server counts, in Prometheus's text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one server, which no other server in the process shares."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("imgclf_requests", "Requests by route and status.", ["route", "status"], registry=registry)
        self._seconds = Histogram(
            "imgclf_request_seconds", "From the first byte to the answer, by route.", ["route"], buckets=_SECONDS, registry=registry
        )
        self._images = Counter("imgclf_images", "Images by model and outcome.", ["model", "outcome"], registry=registry)
        self._sizes = Histogram("imgclf_batch_images", "Images per batch.", ["model"], buckets=_SIZES, registry=registry)
        self._batches = Histogram("imgclf_batch_seconds", "Of computing a batch.", ["model"], buckets=_SECONDS, registry=registry)
        self._queue = Gauge("imgclf_queue_images", "Images that wait or are computed.", ["model"], registry=registry)
        self._refusals = Counter("imgclf_refusals", "Requests that were not answered, by reason.", ["reason"], registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request; `route` is the pattern of the path, so that no client can make new time series."""
        self._requests.labels(route, status).inc()
        self._seconds.labels(route).observe(seconds)

    def images(self, model: str, answered: int, unread: int) -> None:
        """Counts the images of a request."""
        if answered:
            self._images.labels(model, "answered").inc(answered)
        if unread:
            self._images.labels(model, "unread").inc(unread)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Counts a batch."""
        self._sizes.labels(model).observe(images)
        self._batches.labels(model).observe(seconds)

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        """Has a queue's length asked for when the metrics are read."""
        self._queue.labels(model).set_function(length)

    def refusal(self, reason: str) -> None:
        """Counts a refusal."""
        self._refusals.labels(reason).inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
