"""What clients ask: the fields of a search and of documents, checked and made into items."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..indexes.storage.filters import check_where
from ..items import Item
from .quotas import Quotas, TooLarge

Scalar = str | int | float | bool
SHOWN = 10  # hits where a request does not say how many
FILTERED = 1000  # values of a filter: many more take longer than a search


class SearchRequest(BaseModel):
    """A search for text, a picture, what is like a document, or several of them together."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(None, description="The query, in any language.")
    image: str | None = Field(None, description="A picture, as base64 or a data: URL.")
    id: str | None = Field(None, description="A document that others are to be like.")
    lang: str | None = Field(None, description="The language of the text; identified if it is not given.")
    k: int = Field(SHOWN, ge=1, description="How many hits.")
    offset: int = Field(0, ge=0, description="How many hits to pass over, for further pages.")
    where: dict[str, Scalar | list[Scalar]] = Field(
        default_factory=dict, description="`lang`, `modality` or metadata; values of one key are alternatives."
    )
    mode: str | None = Field(None, description="hybrid, dense or lexical, in place of a system.")
    system: str | None = Field(None, description="The name of a system; the first if it is not given.")
    index: str | None = Field(None, description="The name of an index; the first if it is not given.")
    rerank: bool | None = Field(None, description="Whether to rerank; by default where the system does.")
    explain: bool = Field(False, description="Where each hit stood after each stage.")
    facets: bool = Field(False, description="Counts of languages and modalities among the first hits.")
    exact: bool = Field(False, description="No approximate search.")
    timeout_ms: int | None = Field(None, ge=1, description="When to answer with what there is.")


class DocumentRequest(BaseModel):
    """A document to be stored."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1)
    text: str | None = None
    lang: str | None = None
    image: str | None = Field(None, description="A picture, as base64 or a data: URL.")
    meta: dict[str, Any] = Field(default_factory=dict)


class DocumentsRequest(BaseModel):
    """Documents to be stored, new or in the place of those with their ids."""

    model_config = ConfigDict(extra="forbid")

    index: str | None = None
    documents: list[DocumentRequest] = Field(min_length=1, max_length=1000)


def parse_request(kind: type[BaseModel], body: bytes | str | Mapping[str, Any]) -> Any:
    """A request of that kind; `InputError` names the first field that is wrong."""
    try:
        if isinstance(body, Mapping):
            return kind.model_validate(body)
        return kind.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise InputError(describe_fault(error.errors())) from None


def describe_fault(errors: Sequence[Any]) -> str:
    """The first thing that is wrong with a request, in one line."""
    fault = errors[0]
    where = fault["loc"]
    if len(where) > 1 and where[0] in ("body", "query"):  # FastAPI's own, before the names of fields
        where = where[1:]
    place = ".".join(map(str, where))
    if fault["type"] == "json_invalid":
        return f"the body is not JSON: {fault.get('ctx', {}).get('error', 'it cannot be read')}"
    if fault["type"] == "extra_forbidden":
        return f"there is no field {place!r} in this request"
    return f"{place or 'the body'}: {str(fault['msg'])[:1].lower()}{str(fault['msg'])[1:]}"


def parse_query(pairs: Sequence[tuple[str, str]]) -> SearchRequest:
    """A search as it stands in a URL: `q` is its text, `where` is `KEY=VALUE` and may stand there several times."""
    found: dict[str, Any] = {}
    where: dict[str, list[str]] = {}
    for key, value in pairs:
        if key == "where":
            name, equals, kept = value.partition("=")
            if not equals or not name:
                raise InputError(f"where={value!r} is not KEY=VALUE")
            where.setdefault(name, []).append(kept)
        elif key == "image":
            raise InputError("a picture stands in the body: POST it")
        else:
            name = "text" if key == "q" else key
            if name in found:
                raise InputError(f"{key} stands twice in the query")
            found[name] = value
    request: SearchRequest = parse_request(SearchRequest, {**found, "where": where})
    return request


def parse_form(fields: Mapping[str, Any]) -> SearchRequest:
    """A search from a form's field `query`, JSON as in a body."""
    try:
        request: SearchRequest = parse_request(SearchRequest, fields.get("query", ""))
    except InputError as error:
        raise InputError(f"the field query of the form: {error}") from None
    return request


def decode_picture(text: str, limits: Quotas, what: str = "image") -> bytes:
    """The bytes of a picture in base64, perhaps as a data: URL; `TooLarge` above the limit, and no URL is opened."""
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InputError(f"{what}: a data: URL of a picture has ;base64, before its bytes")
    elif "://" in text[:16]:
        raise InputError(f"{what}: pictures are not fetched from addresses: give the picture itself, as base64")
    if len(text) > limits.picture_bytes * 4 // 3 + 4:
        raise TooLarge(f"{what}: a picture has at most {limits.picture_bytes:,} bytes")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{what}: not base64") from None


def make_query(request: SearchRequest, picture: bytes | None) -> Item:
    """The query of a search; `InputError` where it asks for nothing."""
    text = request.text if request.text and request.text.strip() else None
    if text is None and not picture and request.id is None:
        raise InputError("the query is empty: give text, image or id")
    return Item("", text=text, image=picture or None, lang=request.lang)


def make_where(request: SearchRequest) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The filter of a search, its keys and values in one order; `InputError` for what is none."""
    lists = {key: value if isinstance(value, list) else [value] for key, value in request.where.items()}
    check_where(lists)
    if (held := sum(map(len, lists.values()))) > FILTERED:
        raise InputError(f"where has {held:,} values, and {FILTERED:,} are the most")
    # By how they are written, as True and 1 are equal.
    ordered = {key: sorted({repr(each): each for each in values}.items()) for key, values in sorted(lists.items())}
    return tuple((key, tuple(value for _, value in values)) for key, values in ordered.items())
