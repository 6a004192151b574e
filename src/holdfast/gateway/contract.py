"""What `/openapi.json` says of every route beyond what its handler's signature says: bodies, refusals, keys, scopes.

Handlers read their bodies themselves (`body.py`: bounded, decoded once, awkward text mended), so the description of a
body stands here. It describes and refuses nothing. `make contract` holds the running gateway against it.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, get_args

from fastapi.openapi.utils import get_openapi

from holdfast.gateway.tokens import needed
from holdfast.inbound.route import Kind
from holdfast.lane.queue import Mode
from holdfast.lane.states import states_of
from holdfast.observe.usage import BYS

if TYPE_CHECKING:
    from fastapi import FastAPI

Schema = dict[str, Any]
ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": "null"},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
REFUSALS = {
    400: "It cannot be: a parameter or body is not as described, or contradicts what is there.",
    401: "No token, or a wrong one.",
    403: "The token has not the scope, or a page of another origin asks.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "Not now, or not with this key: in use, still running, or another body under the same key.",
    413: "Too large.",
    415: "Not JSON by its type, or compressed.",
    421: "This gateway does not go by that name.",
    422: "The turn passed one of its limits.",
    429: "Too many: wrong tokens, changes, sockets, or inputs that wait.",
    502: "No model answered.",
    503: "Draining, or the store refuses for now.",
    507: "The disk is full.",
}
ALWAYS = (400, 401, 403, 421, 429, 503)
OF_NAMES = (404,)
OF_CHANGES = (404, 409, 507)
OF_BODIES = (408, 413, 415)
OF_TURNS = (422, 502)
KEY: Schema = {
    "type": "string", "minLength": 1, "maxLength": 120, "pattern": r"^[!-.0-~][ -.0-~]{0,118}[!-.0-~]$|^[!-.0-~]$",
}  # fmt: skip
"""Of session keys those that every client can write into an address; others are free text of up to 512 bytes."""
TEXT: Schema = {"type": "string", "minLength": 1}
WORDS: Schema = {"type": ["string", "null"]}
CONTENT: Schema = {
    "anyOf": [
        {"type": "string", "minLength": 1, "pattern": r"\S"},
        {
            "type": "array", "minItems": 1,
            "items": {
                "type": "object", "required": ["type", "text"], "additionalProperties": False,
                "properties": {"type": {"const": "text"}, "text": {"type": "string", "pattern": r"\S", "minLength": 1}},
            },
        },
    ]
}  # fmt: skip
SAID: Schema = {
    "text": {"type": "string", "pattern": r"\S", "minLength": 1, "description": "What is said."},
    "content": {**CONTENT, "description": "The same, or a list of parts."},
    "lane": {"enum": ["main", "subagent", "cron", "hook", None]},
    "model": {"type": ["string", "null"], "enum": ["demo/demo", "holdfast", None]},
    "route": {"type": ["string", "null"], "enum": ["console:me", None], "description": "`channel:target`."},
    "queue": {"enum": [*get_args(Mode), None]},
}
CHAT_MESSAGE: Schema = {
    "type": "object", "required": ["role", "content"], "additionalProperties": False,
    "properties": {"role": {"enum": ["user"]}, "content": CONTENT},
}  # fmt: skip
MODEL: Schema = {"enum": ["holdfast", "demo/demo"], "description": "See `GET /v1/models`."}


def _object(required: list[str], **properties: Schema) -> Schema:
    """Further names are ignored, as OpenAI's clients send many."""
    return {"type": "object", "required": required, "properties": properties}


BODIES: dict[tuple[str, str], Schema] = {
    ("post", "/v1/chat/completions"): _object(
        ["model", "messages"], model=MODEL, messages={"type": "array", "minItems": 1, "items": CHAT_MESSAGE},
        stream={"type": "boolean"}, user={"type": "string", "pattern": "^[a-z0-9-]{1,64}$"},
    ),
    ("post", "/v1/responses"): _object(
        ["model", "input"], model=MODEL, input={"type": "string", "pattern": r"\S", "minLength": 1},
        stream={"type": "boolean"}, user={"type": "string", "pattern": "^[a-z0-9-]{1,64}$"},
    ),
    ("post", "/api/sessions/{key}/messages"): {
        **_object(["text"], **{name: SAID[name] for name in SAID if name != "content"}),
    },
    ("post", "/api/messages"): _object(
        ["channel", "peer", "text"], channel={**TEXT, "pattern": "^[a-z]{1,20}$"},
        peer={**TEXT, "pattern": "^[A-Za-z0-9_-]{1,64}$"}, kind={"enum": [*get_args(Kind), None]}, text=SAID["text"],
    ),
    ("patch", "/api/sessions/{key}"): _object(
        ["title"], title={"type": ["string", "null"], "pattern": "^[A-Za-z0-9]{1,100}$"}
    ),
    ("post", "/api/sessions/{key}/read"): _object(["by"], by={"type": "string", "pattern": "^[a-z0-9:@.-]{1,64}$"}),
    ("post", "/api/sessions/prune"): _object([], dry_run={"type": "boolean"}),
    ("post", "/api/sessions/{key}/recover"): _object(
        [], ask={"type": "boolean"}, wait_s={"type": "number", "minimum": 0, "maximum": 600}
    ),
    ("post", "/api/approvals/{id}"): _object(
        ["answer"], answer={"enum": ["approve", "deny"]}, scope={"enum": ["once", "session"]}
    ),
    ("post", "/api/pairings/{channel}"): {
        "oneOf": [_object(["approve"], approve={"type": "string"}), _object(["revoke"], revoke={"type": "string"})]
    },
    ("post", "/hooks/wake"): _object(["text"], text=TEXT, mode={"enum": ["now", "next-heartbeat"]}),
    ("post", "/hooks/agent"): _object(["message"], message=TEXT),
}  # fmt: skip
"""By method and path. What is not here takes no body, or one in a form of its sender's."""
OPTIONAL = {("post", "/api/sessions/{key}/recover")}
FOREIGN = ("/channels/{name}", "/hooks/{name}")
QUERIES: dict[tuple[str, str], Schema] = {
    ("/api/inputs", "state"): {"enum": sorted(states_of("input"))},
    ("/api/outbox", "state"): {"enum": ["dropped", "failed", "pending", "sent", "started", "unknown"]},
    ("/api/usage", "by"): {"enum": list(BYS)},
    ("/api/usage", "since"): {"type": "string", "pattern": "^([1-9][0-9]{0,2}[dh]|today|month)$", "default": "30d"},
    ("/api/usage", "timezone"): {
        "type": "string", "default": "UTC", "enum": ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"],
        "description": "Any IANA name.",
    },
}  # fmt: skip
STREAMS = {"/api/events"}
CONVERSATIONS = frozenset({
    "/v1/chat/completions", "/v1/responses", "/api/sessions/{key}/messages", "/api/messages",
})  # fmt: skip
LATER = (202, "Stored, or asked for; it goes on.")
OPEN = frozenset({"/healthz", "/readyz"})


def openapi_of(app: FastAPI) -> Schema:
    """The whole description."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            _describe(method, path, operation)
    components = found.setdefault("components", {})
    components.pop("schemas", None)
    components["schemas"] = {"Error": ERROR}
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return found


def _describe(method: str, path: str, operation: Schema) -> None:
    for parameter in operation.get("parameters", ()):
        _describe_parameter(path, parameter)
    body = BODIES.get((method, path))
    if body is not None:
        is_needed = (method, path) not in OPTIONAL
        operation["requestBody"] = {"required": is_needed, "content": {"application/json": {"schema": deepcopy(body)}}}
    elif path in FOREIGN:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": {}}}}
    operation["responses"] = _responses(method, path, has_body="requestBody" in operation)
    if path not in OPEN and not path.startswith(("/hooks/", "/channels/")):
        operation["security"] = [{"token": []}]
        declared = path.replace("{key}", "{key:path}")
        operation["x-holdfast-scope"] = needed(method.upper(), declared)


def _describe_parameter(path: str, parameter: Schema) -> None:
    name, schema = parameter["name"], parameter["schema"]
    if parameter["in"] == "path":
        parameter["schema"] = {**KEY} if name == "key" else {**schema, **({} if "enum" in schema else {"minLength": 1})}
    elif (path, name) in QUERIES:
        parameter["schema"] = deepcopy(QUERIES[path, name])
    elif "anyOf" in schema:  # in an address there is no null: what is left out is left out
        [only] = [one for one in schema["anyOf"] if one.get("type") != "null"]
        parameter["schema"] = only


def _responses(method: str, path: str, *, has_body: bool) -> Schema:
    kind = "text/plain" if path == "/metrics" else "text/event-stream" if path in STREAMS else "application/json"
    content: Schema = {kind: {"schema": {"type": "object"} if kind == "application/json" else {"type": "string"}}}
    if path in ("/v1/chat/completions", "/v1/responses"):
        content["text/event-stream"] = {}
    if path in FOREIGN:
        content = {"*/*": {}}
    responses: Schema = {"200": {"description": "Done.", "content": content}}
    if path in CONVERSATIONS or path.endswith("/cancel") or path.startswith("/hooks/"):
        responses[str(LATER[0])] = {"description": LATER[1], "content": deepcopy(content)}
    statuses = {*ALWAYS, *(OF_NAMES if "{" in path else ()), *(OF_CHANGES if method != "get" else ())}
    statuses |= {*(OF_BODIES if has_body else ())} | {*(OF_TURNS if path in CONVERSATIONS else ())}
    for status in sorted({503} if path in OPEN else statuses):
        responses[str(status)] = {
            "description": REFUSALS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    if path.startswith("/api/sessions/") and path.endswith("/recover"):  # 409 tells what was tried without effect
        responses["409"]["content"]["application/json"]["schema"] = {"type": "object"}
    return responses
