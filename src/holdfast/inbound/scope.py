"""What a token of the gateway may do: four scopes, and what each of them takes in. Pure.

`read` sees everything that is shown; `write` also talks and stops; `approve` also answers whether a tool may run;
`admin` may do everything. Every token reads: whoever may not see a session has no business talking in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from holdfast.inbound.commands import Command

Scope = Literal["read", "write", "approve", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
EVERYTHING: frozenset[Scope] = frozenset(SCOPES)
READING: frozenset[Scope] = frozenset({"read"})
APPROVING = frozenset({"approve", "deny"})
"""Slash commands that answer whether a tool may run. All others are part of talking."""


def granted(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes of a token with everything that they take in."""
    named: frozenset[Scope] = frozenset(scopes) | READING
    return EVERYTHING if "admin" in named else named


def of_command(command: Command | None) -> Scope:
    """What it takes to say it. None: it is no command, but a message."""
    return "approve" if command is not None and command.name in APPROVING else "write"
