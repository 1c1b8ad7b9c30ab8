"""The interface of the service on one page of plain HTML, made of its OpenAPI description."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any


def draw_interface(api: Mapping[str, Any]) -> str:
    """All paths with what they do, and the fields of what they take; `api` is an OpenAPI description."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(api['info']['title'])}: interface</title><link rel=stylesheet href=/page/page.css>"
        f"<main class=interface><h1>{escape(api['info']['title'])} {escape(api['info']['version'])}</h1>"
        "<p>The same for programs: <a href=/openapi.json>openapi.json</a></p>"
    ]
    for path, methods in api["paths"].items():
        for method, about in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts.append(f"<p>{escape(about.get('description', about.get('summary', '')))}</p>")
    for name, schema in api.get("components", {}).get("schemas", {}).items():
        if name in ("HTTPValidationError", "ValidationError") or "properties" not in schema:
            continue
        parts.append(f"<h2>{escape(name)}</h2><p>{escape(schema.get('description', ''))}</p><dl>")
        for field, about in schema["properties"].items():
            kind = about.get("type") or " or ".join(each.get("type", "?") for each in about.get("anyOf", ()))
            parts.append(f"<dt><code>{escape(field)}</code> {escape(kind)}</dt>")
            parts.append(f"<dd>{escape(about.get('description', ''))}</dd>")
        parts.append("</dl>")
    return "".join([*parts, "</main></html>"])
