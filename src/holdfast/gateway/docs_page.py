"""`/docs`: the routes and what they do, as one page without scripts or anything from elsewhere. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c2024;background:#fff}"
    "dt{margin-top:2rem;padding-top:.75rem;border-top:1px solid #d5d9de;overflow-wrap:anywhere}dt code{font-weight:600}"
    "dd{margin:0}p{margin:.5rem 0}code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{color:#e3e6ea;background:#15181b}dt{border-color:#3a4047}a{color:#8ab4f8}}"
)
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
"""The page's Content-Security-Policy: that of every answer, and this one style."""

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
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1><p>Every request but the health checks carries <code>Authorization: Bearer TOKEN</code>, or "
        'the cookie of a browser (<a href="/login">log in or out</a>); '
        "webhooks (<code>/hooks/…</code>) have keys of their own. "
        'The same as data: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<dl>{''.join(routes)}</dl></body></html>"
    )


def _route(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = [escape(p["name"]) for p in operation.get("parameters", ()) if p["in"] == "query"]
    query = f"<p>Query: <code>{', '.join(parameters)}</code></p>" if parameters else ""
    paragraphs = "".join(f"<p>{_text(text)}</p>" for text in operation.get("description", "").split("\n\n") if text)
    return f"<dt><code>{method.upper()} {escape(path)}</code></dt><dd>{paragraphs}{query}</dd>"


def _text(text: str) -> str:
    """A paragraph, what stands between backquotes as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
