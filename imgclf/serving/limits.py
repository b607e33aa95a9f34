"""What a server takes, so that no request can have all of its memory or time."""

import dataclasses
import math

from imgclf.errors import UserError

MB = 1_000_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a server; a request beyond one is refused, and told which.

    Attributes:
      image_bytes: of one image's file.
      request_bytes: of a request's body.
      images: of one request.
      pixels: of one image; more are refused from its header, before they are decoded.
      held_bytes: of all bodies that are in memory at once.
      queue: images of a model that wait or are computed; a request that finds no room gets 503 with the seconds after which to come back.
      seconds: from a whole body to its answer; then 504.
      bytes_per_second: of a body, after `grace` seconds; a slower one gets 408.
      grace: seconds.
      connections: that are open at once.

    Raises:
      UserError: for a limit that is not above 0, or below another that it must hold.
    """

    image_bytes: int = 20 * MB
    request_bytes: int = 64 * MB
    images: int = 64
    pixels: int = 50_000_000
    held_bytes: int = 512 * MB
    queue: int = 256
    seconds: float = 30.0
    bytes_per_second: int = 1000
    grace: float = 5.0
    connections: int = 1000

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise UserError(f"The limit {name} is {value:g}: give a number above 0.")
        for small, large in (("image_bytes", "request_bytes"), ("request_bytes", "held_bytes"), ("images", "queue")):
            if getattr(self, small) > getattr(self, large):
                raise UserError(
                    f"The limit {small} is {getattr(self, small):,} and {large} {getattr(self, large):,}, which has no room for that: "
                    f"lower the one or raise the other."
                )


def check_options(threshold: float | None, max_batch: int, max_wait_ms: float) -> None:
    """Raises a UserError for an option of a server that is out of its range."""
    if max_batch < 1:
        raise UserError(f"max_batch={max_batch} is no number of images: give 1 or more.")
    if not 0 <= max_wait_ms < math.inf:
        raise UserError(f"max_wait_ms={max_wait_ms:g} is no number of milliseconds: give 0 or more.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"threshold={threshold:g} is no probability from 0 to 1.")


class Refusal(Exception):
    """A request that is not answered: the status and the sentence that say why."""

    def __init__(self, status: int, reason: str, sentence: str, retry_after: int = 0):
        """
        Args:
          status: of HTTP.
          reason: one word, by which refusals are counted.
          sentence: what the client is told.
          retry_after: seconds after which the same request may be taken; 0 = don't say.
        """
        super().__init__(sentence)
        self.status, self.reason, self.sentence, self.retry_after = status, reason, sentence, retry_after
