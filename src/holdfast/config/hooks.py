"""`[hooks]`: webhooks that come in."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    Field,
)

from holdfast.config.providers import ModelRef
from holdfast.config.section import FrozenMap, Positive, Section
from holdfast.errors import InputError
from holdfast.inbound.event import Route
from holdfast.inbound.webhook import Scheme, Template

MIB, DAY_MS = 1 << 20, 86_400_000


def _template(text: str) -> str:
    try:
        Template(text)
    except InputError as exc:
        raise ValueError(str(exc)) from None
    return text


def _route_text(text: str) -> str:
    try:
        Route.parse(text)
    except InputError as exc:
        raise ValueError(str(exc)) from None
    return text


TemplateText = Annotated[str, AfterValidator(_template)]


RouteText = Annotated[str, AfterValidator(_route_text)]


class HookConfig(Section):
    """One hook, `POST /hooks/NAME`: who may call it, and what its payload says to which agent."""

    scheme: Scheme = Field(
        default="token",
        description="How its sender proves itself: `token` (a bearer token), or a signature over the body as GitHub "
        "(`github`), Slack (`slack`) or Standard Webhooks (`standard`) make it.",
    )
    secret_env: str | None = Field(
        default=None, description="Environment variable that holds its secret. Unset, with `token`: `hooks.token_env`."
    )
    events: tuple[str, ...] = Field(
        default=(), strict=False, description="Kinds of events that are taken, as the sender names them. Empty: all."
    )
    session: TemplateText = Field(
        default="hook:{{ hook }}",
        description="Session key; may look values of the payload up, such as `hook:{{ repository.full_name }}`.",
    )
    message: TemplateText | None = Field(
        default=None, description="What the agent is told, with values looked up. Unset: the payload as JSON."
    )
    route: RouteText | None = Field(default=None, description='Where the answer is sent, "channel:target".')
    model: ModelRef | None = Field(default=None, description="Unset: the agent's.")
    trusted: bool = Field(
        default=False, description="The text is not marked as data from outside that must not be obeyed."
    )
    wakes: str | None = Field(
        default=None, description="An agent whose heartbeat is told of it, in place of a turn of its own."
    )
    per_minute: Positive = Field(default=30, description="Deliveries taken in a minute; more are refused (429).")


class HooksConfig(Section):
    """Webhooks: doors for other programs, with keys of their own."""

    enabled: bool = Field(default=False, description="Whether `/hooks/…` is there.")
    token_env: str = Field(
        default="HOLDFAST_HOOKS_TOKEN",
        description="Environment variable with the token of `/hooks/wake`, `/hooks/agent` and of hooks without a "
        "secret of their own. It must not be the gateway's.",
    )
    allow_request_session: bool = Field(
        default=False, description="Whether callers of `/hooks/agent` may name a session."
    )
    session_prefixes: tuple[str, ...] = Field(
        default=("hook:",), min_length=1, strict=False, description="What chosen session keys must begin with."
    )
    agents: tuple[str, ...] = Field(default=("main",), strict=False, description="Agents that may be asked.")
    per_minute: Positive = Field(default=30, description="As of each hook, for `/hooks/wake` and `/hooks/agent`.")
    mappings: FrozenMap[HookConfig] = Field(default_factory=dict, validate_default=True)
