"""How answers are written: bytes, by orjson.

Measured on one core, for 1,000 vectors of 384 float32: json 0.28 to 0.47 s and 8.4 MB, formatting by hand 0.10 s,
pyarrow 0.045 s, orjson 0.015 s and 4.7 MB, all exact; base64 0.004 s and 2.1 MB. For one vector: json 0.38 ms,
pyarrow 0.13 ms, base64 0.01 ms.
"""

from __future__ import annotations

import json

import orjson
from starlette.responses import Response


def write_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON of a value, in which arrays of float32 may stand: each number is the shortest that gives it back."""
    try:
        content = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # half of a surrogate pair, or a number that is too large, in somebody's metadata
        content = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(content, status, headers, media_type="application/json")
