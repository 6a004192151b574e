"""What a tool call may do: the rules, and how they are put together. Pure.

Rules are lists of names and groups (`@read`), for everybody, a lane, a channel or an agent. In this order:

1. `deny` wins, wherever it stands.
2. Somebody who is trusted: the most specific table that names the tool decides: agent, channel, lane, all. Within one
   table `ask` wins over `allow`.
3. Somebody who is not: only the table of their lane can let more happen than reading; tables of the agent, the channel
   and all can only hold back (`ask`).
4. Where nothing is said: what changes nothing may run. The rest is asked for if they are trusted, else denied.

Trusted is who speaks in lane `main` outside of groups. A group, a webhook, a timer and what they lead to are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

from holdfast.lane.queue import USER_LANE
from holdfast.session.key import parse_key

Effect = Literal["none", "read", "change", "run", "send"]
"""What a call does to the world: nothing; it reads; it changes files or other systems; it runs a program; it sends
something to somebody.
"""
EFFECTS: tuple[Effect, ...] = ("none", "read", "change", "run", "send")
HARMLESS: frozenset[Effect] = frozenset({"none", "read"})
Say = Literal["allow", "ask", "deny"]


@dataclass(frozen=True, slots=True)
class Rules:
    """One table: names of tools, patterns with `*`, or groups such as `@run`."""

    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def says(self, tool: str, effect: Effect) -> Say | None:
        """What this table says of a call; None: nothing. What holds back wins."""
        if _names(self.deny, tool, effect):
            return "deny"
        if _names(self.ask, tool, effect):
            return "ask"
        return "allow" if _names(self.allow, tool, effect) else None


def _names(patterns: tuple[str, ...], tool: str, effect: Effect) -> bool:
    return any(one == f"@{effect}" or fnmatchcase(tool, one) for one in patterns)


_Said = tuple[str, Say | None]
_NOTHING: Mapping[str, Rules] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Policy:
    """All tables.

    Args:
        every: for everybody. lanes, channels, agents: by name.
        trusted_groups: sessions of groups whose members are all trusted: keys, or patterns with `*`.
        open_channels: where anybody may write directly (`dm = "open"`): as in a group, nobody is trusted for that.
    """

    every: Rules = field(default_factory=Rules)
    lanes: Mapping[str, Rules] = field(default_factory=lambda: _NOTHING)
    channels: Mapping[str, Rules] = field(default_factory=lambda: _NOTHING)
    agents: Mapping[str, Rules] = field(default_factory=lambda: _NOTHING)
    trusted_groups: tuple[str, ...] = ()
    open_channels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a model calls a tool.

    Args:
        lane: the lane whose rights count (`Turn.rights`).
        channel: where they speak; empty: nowhere in particular.
        session: the conversation above all: of a sub-agent, the one that its task comes from in the end.
    """

    agent: str
    lane: str
    channel: str
    session: str

    @property
    def is_in_group(self) -> bool:
        return parse_key(self.session).chat in ("group", "channel")


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a call, and why, in words."""

    say: Say
    why: str


def is_trusted(policy: Policy, caller: Caller) -> bool:
    """Whether more than reading may be asked for."""
    if caller.lane != USER_LANE:
        return False
    return _public_place(policy, caller) is None or any(
        fnmatchcase(caller.session, one) for one in policy.trusted_groups
    )


def _public_place(policy: Policy, caller: Caller) -> str | None:
    """Where others than the owner's people may speak, in words; None: it is not such a place."""
    if caller.is_in_group:
        return "a group"
    channel = parse_key(caller.session).channel
    return f"channel {channel!r}, where anybody may write," if channel in policy.open_channels else None


def rule(policy: Policy, caller: Caller, tool: str, effect: Effect) -> Ruling:
    """What the policy says of one call."""
    tables = [
        (f"agent {caller.agent!r}", policy.agents.get(caller.agent)),
        (f"channel {caller.channel!r}", policy.channels.get(caller.channel) if caller.channel else None),
        (f"lane {caller.lane!r}", policy.lanes.get(caller.lane)),
        ("everybody", policy.every),
    ]
    said: list[_Said] = [(of, table.says(tool, effect)) for of, table in tables if table is not None]
    for of, say in said:
        if say == "deny":
            return Ruling("deny", f"denied for {of}")
    if is_trusted(policy, caller):
        for of, say in said:
            if say is not None:
                return Ruling(say, f"{_WORDS[say]} for {of}")
        return Ruling("allow", "changes nothing") if effect in HARMLESS else Ruling("ask", _unsaid(effect))
    return _for_untrusted(said, caller, effect, _public_place(policy, caller))


def held_back(policy: Policy, caller: Caller, tool: str, effect: Effect) -> str:
    """Why a tool may not be used for notes without asking a person, in words; empty: it may.

    Notes are not in the tables: what nothing is said of may be written by an agent whose conversation is trusted, in
    the folder for notes alone (`tool/memory.py`). Whoever wants it otherwise names the tool, or its group.
    """
    if not is_trusted(policy, caller):
        where = _public_place(policy, caller) or f"lane {caller.lane!r}"
        return f"not for {where}: who speaks there may only read"
    ruling = rule(policy, caller, tool, effect)
    if ruling.say == "allow" or (ruling.say == "ask" and ruling.why == _unsaid(effect)):
        return ""
    return ruling.why


def _unsaid(effect: Effect) -> str:
    return f"it may {_DOES[effect]}"


def _for_untrusted(said: list[_Said], caller: Caller, effect: Effect, public: str | None) -> Ruling:
    own = f"lane {caller.lane!r}"
    of_lane: Say | None = next((say for of, say in said if of == own), None)
    where = public or own
    if of_lane is not None and public is None:
        found = Ruling(of_lane, f"{_WORDS[of_lane]} for {own}")
    elif effect in HARMLESS:
        found = Ruling("allow", "changes nothing")
    else:
        return Ruling("deny", f"it may {_DOES[effect]}, and {where} may only read")
    asks = next((of for of, say in said if say == "ask"), None)
    return Ruling("ask", f"to be asked for by {asks}") if found.say == "allow" and asks is not None else found


_WORDS: dict[Say, str] = {"allow": "allowed", "ask": "to be asked for", "deny": "denied"}
_DOES: dict[Effect, str] = {
    "none": "do nothing",
    "read": "read",
    "change": "change something",
    "run": "run a program",
    "send": "send something to others",
}
