"""What one service takes on, and the answers for what is too much: busy, too large, unknown, late."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import CrosslensError, InputError, check_at_least


@dataclass(frozen=True)
class Quotas:
    """The most of everything; all of it is said by `GET /service`.

    `requests` are under way at once; a body has `body_bytes`, and `picture_bytes` more for each picture in it;
    `buffered_bytes` are held of all bodies together; a search goes `k` hits deep; the text of a query has
    `query_tokens`; a request that names no time gets `timeout_ms`; an input list has `inputs` elements.
    """

    requests: int = 512
    body_bytes: int = 2 << 20
    picture_bytes: int = 10 << 20
    buffered_bytes: int = 256 << 20
    k: int = 1000
    query_tokens: int = 512
    timeout_ms: int = 30_000
    inputs: int = 2048

    def __post_init__(self) -> None:
        check_at_least(1, **vars(self))

    @property
    def whole_body(self) -> int:
        """Bytes of a body that holds one picture, which JSON makes a third longer."""
        return self.body_bytes + self.picture_bytes * 4 // 3 + 4


class Refused(CrosslensError):
    """A request that is not answered, through no mistake in what it says; `status` is HTTP's."""

    status = 500
    kind = "server_error"


class Busy(Refused):
    """Too much is under way: try again in a second."""

    status = 429
    kind = "rate_limit_error"


class TooLarge(Refused):
    """A body, a picture or a text above its limit."""

    status = 413
    kind = "invalid_request_error"


class Unknown(InputError):
    """A document, an index, a model or a system that is not served."""


class Late(Refused):
    """The time of a request is over, and there is nothing yet to answer with."""

    status = 504
    kind = "server_error"


class Unready(Refused):
    """The service is starting or ending."""

    status = 503
    kind = "server_error"
