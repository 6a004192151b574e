"""Asking a person whether a call may run: values and rules. No I/O.

An approval belongs to one call of one turn: tool and arguments by digest, turn by its epoch. It can be used once, by
that turn, while that turn owns its session. It is a row in the ledger, so that a chat, the command line and a program
can answer it from any process, and so that nobody is asked twice by one attempt. When an attempt dies while it waits,
the call has not run, so the next attempt asks anew, under its own epoch.

    pending → approved → used        pending → denied        pending → expired        pending, approved → void
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from holdfast.ids import derived_id
from holdfast.inbound.event import Route
from holdfast.text import on_one_line

ApprovalState = Literal["pending", "approved", "denied", "expired", "void", "used"]
Scope = Literal["once", "session"]
TIMEOUT_S = 900.0
"""A person who looks at a chat now and then; longer than that, the turn that waits is in everybody's way."""
GRANT_S = 12 * 3600.0
"""How long a consent for a whole session holds: a working day."""
SHOWN_CHARS_MAX = 1500
"""Of the arguments, in a notice: what fits into a chat message of any platform with the rest of it."""
KEPT_CHARS_MAX = 64 * 1024
ID_DIGITS = 10


@dataclass(frozen=True, slots=True)
class ApprovalOrder:
    """A question to be put.

    Args:
        nonce: random half of the asking turn's epoch, which must own the session when the question is put.
        digest: of tool and arguments. subject: what a consent for the whole session would cover.
        shown: the arguments for people, without secrets, in full or cut to `KEPT_CHARS_MAX`.
        why: what the policy said.
        notices: where the question is put as a message.
        timeout_s: how long there is to answer.
    """

    session: str
    input_id: str | None
    turn: str
    nonce: str
    call_id: str
    tool: str
    digest: str
    subject: str
    shown: str
    why: str
    notices: tuple[Route, ...] = ()
    timeout_s: float = TIMEOUT_S

    @property
    def id(self) -> str:
        """Names the question: the same call of the same attempt is the same one. Short, since people type it."""
        return "ap_" + derived_id("approval", self.turn, self.nonce, self.call_id, self.digest)[:ID_DIGITS]


@dataclass(frozen=True, slots=True)
class Approval:
    """A question as the ledger has it.

    Args:
        state: "void" also where the turn that asked has ended.
        scope: of an answer.
        by: who answered.
    """

    id: str
    session: str
    input_id: str | None
    turn: str
    tool: str
    digest: str
    subject: str
    shown: str
    why: str
    state: ApprovalState
    asked_at_ms: int
    expires_at_ms: int
    scope: Scope = "once"
    by: str | None = None
    decided_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A consent for a whole session: calls of `tool` whose subject is `subject`."""

    session: str
    tool: str
    subject: str
    by: str
    at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class NotAsked:
    """The question was not put, or an answer has changed nothing. `text` says why, and the way out."""

    text: str


def shown_arguments(arguments: dict[str, Any]) -> str:
    """Arguments for people: an argument list as such, everything else as JSON, nothing that a terminal acts upon."""
    text = json.dumps(arguments, ensure_ascii=False, default=str, separators=(", ", ": "))
    shown = on_one_line(text)
    if len(shown) <= KEPT_CHARS_MAX:
        return shown
    return f"{shown[:KEPT_CHARS_MAX]}… ({len(shown) - KEPT_CHARS_MAX} characters left out)"


def notice_text(order: ApprovalOrder) -> str:
    """The message that asks. What is too long for it is cut, and says so: then the whole is shown on request."""
    shown = _quoted(order.shown)
    if len(shown) > SHOWN_CHARS_MAX:
        half = SHOWN_CHARS_MAX // 2
        left_out = len(shown) - 2 * half
        shown = (
            f"{shown[:half]} … ({left_out} characters are NOT shown here; `holdfast approvals show {order.id}` shows "
            f"all) … {shown[-half:]}"
        )
    minutes = max(1, round(order.timeout_s / 60))
    return (
        f"May this run? {on_one_line(order.tool)}: {shown}\n"
        f"Answer within {minutes} min: /approve {order.id} (this once), /approve {order.id} session, or "
        f"/deny {order.id}."
    )


def _quoted(text: str) -> str:
    """Nothing in it can end a code span, mention somebody or make a link of itself."""
    return text.replace("`", "'").replace("@", "@\u200b").replace("<", "‹").replace(">", "›")


def result_text(approval: Approval, timeout_s: float) -> str:
    """What the model reads of a call that no one has allowed."""
    name = approval.tool
    if approval.state == "denied":
        return (
            f"denied: {approval.by or 'somebody'} has said no to this call of {name}; it was not run. Do not repeat it."
        )
    if approval.state == "expired":
        return (
            f"nobody answered: whether {name} may run was asked {timeout_s / 60:.0f} minutes ago, and nobody has said "
            "so; it was not run. Go on without it, and say what you would have done."
        )
    return f"not run: the question whether {name} may run is void"
