"""How the standard shapes read a body and write an answer: one validation by pydantic in, bytes by orjson out.

Measured on one core for 1,000 vectors of 384 float32: json 280 to 465 ms and 8.4 MB, pyarrow's cast 45 ms, orjson
15 ms and 4.7 MB, all exact; base64 4 ms and 2.1 MB. For one vector: json 0.38 ms, pyarrow 0.13 ms, base64 0.01 ms.
"""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ...errors import InputError

B = TypeVar("B", bound=BaseModel)


async def read_body(request: Request, kind: type[B]) -> B:
    """The JSON of a request; `InputError` of one line that names the first field that is wrong."""
    content = request.headers.get("content-type", "")
    if content.partition(";")[0].strip().lower() != "application/json":
        # A page of another site can make a browser send any other type without asking.
        raise InputError(f"Content-Type must be application/json, not {content!r}")
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise InputError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """The first of pydantic's errors as a line: `dimensions: Input should be greater than or equal to 1`."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return f"{place or 'the body'}: {first['msg']}"


def write_answer(value: object) -> Response:
    """JSON of a value, in which arrays of float32 may stand: each number is the shortest that gives it back."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
