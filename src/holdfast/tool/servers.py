"""What is known of a server that speaks the Model Context Protocol before it is started. Values; no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One server.

    Args:
        name: stands before the names of its tools.
        command: started here; empty: it runs at `url`.
        env: names of the gateway's variables that a started one gets. token_env: the variable with its bearer token.
        start_s: until it must have named its tools. call_s: longest call.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    env: tuple[str, ...] = ()
    token_env: str | None = None
    start_s: float = 20.0
    call_s: float = 120.0
