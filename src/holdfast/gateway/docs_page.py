"""`/docs`: the routes and what they do, as one page without scripts, styles or anything from elsewhere. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

_METHODS = ("get", "post", "put", "patch", "delete")


def docs_page(openapi: dict[str, Any]) -> str:
    """An HTML page of an OpenAPI description. The machine-readable form is `/openapi.json`."""
    title = escape(f"{openapi['info']['title']} {openapi['info']['version']}")
    routes = [
        _route(method, path, operation)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
        if method in _METHODS
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>'
        f"<h1>{title}</h1><p>Every request but the health checks carries <code>Authorization: Bearer TOKEN</code>. "
        'The same as data: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<dl>{''.join(routes)}</dl></body></html>"
    )


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [escape(p["name"]) for p in operation.get("parameters", ()) if p["in"] == "query"]
    query = f"<p>Query: <code>{', '.join(parameters)}</code></p>" if parameters else ""
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in operation.get("description", "").split("\n\n") if text)
    return f"<dt><code>{method.upper()} {escape(path)}</code></dt><dd>{paragraphs}{query}</dd>"
