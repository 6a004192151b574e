"""Whose conversation it is: from where something was said to an agent and a session key. Pure.

A binding names an agent and conditions; of those whose conditions all hold, the most specific wins. A condition on
something smaller outweighs all on something larger: thread, peer, guild, team, kind, account, channel, in this order.
Two bindings with the same conditions are a fault of the configuration, so the order in which they stand says nothing.

Direct messages: each person has a conversation of their own unless `dm_scope` says otherwise. Where several keys are to
be one conversation (`main`, linked identities) each keeps its key, so that an answer goes back to where its message
came from, and names the key whose transcript it shares (`Routed.home`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from holdfast.errors import InputError
from holdfast.session.key import DEFAULT_AGENT, validate_key

Kind = Literal["direct", "group", "channel"]
DmScope = Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]
CONDITIONS = ("thread", "peer", "guild", "team", "kind", "account", "channel")
"""What a binding may ask for, the most specific first."""
_NOT_CHANNELS = ("cron", "main", "hook", "subagent")


@dataclass(frozen=True, slots=True)
class Conversation:
    """Where something was said, in the platform's own words.

    Args:
        channel: name of the adapter. account: which of its accounts (bots); empty: it has one.
        kind: "direct" (then `peer` is the person), "group" or "channel".
        thread: inside of it. guild, team: what it belongs to (a Discord server; a Slack workspace).
    """

    channel: str
    kind: Kind
    peer: str
    account: str = ""
    thread: str | None = None
    guild: str | None = None
    team: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Conversations that meet all conditions (None: any) are this agent's."""

    name: str
    agent: str
    channel: str | None = None
    account: str | None = None
    kind: Kind | None = None
    peer: str | None = None
    thread: str | None = None
    guild: str | None = None
    team: str | None = None

    @property
    def conditions(self) -> dict[str, str]:
        """Those that it has, the most specific first."""
        asked = {name: getattr(self, name) for name in CONDITIONS}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def weight(self) -> tuple[bool, ...]:
        """Greater is more specific."""
        return tuple(getattr(self, name) is not None for name in CONDITIONS)

    def holds_for(self, where: Conversation) -> bool:
        return all(getattr(where, name) == value for name, value in self.conditions.items())


@dataclass(frozen=True, slots=True)
class Rules:
    """How a configuration routes.

    Args:
        dm_scopes: by agent; an agent that is not named has `dm_scope`.
        identities: a person's name, and "channel:peer" of each of their accounts; the first is where their one
            conversation is at home.
    """

    bindings: tuple[Binding, ...] = ()
    default_agent: str = DEFAULT_AGENT
    dm_scope: DmScope = "per-peer"
    dm_scopes: Mapping[str, DmScope] = field(default_factory=dict)
    identities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Routed:
    """Where it goes.

    Args:
        key: names where it came from. home: the session whose transcript it shares; None: it has its own.
        binding: the name of the one that decided; None: none did, it is the default agent's.
        person: the name under which its sender's identities are linked.
    """

    agent: str
    key: str
    home: str | None = None
    binding: str | None = None
    person: str | None = None


def route(where: Conversation, rules: Rules) -> Routed:
    """The agent and the session of a conversation.

    Raises:
        InputError: a channel or a peer that no key can name.
    """
    if not where.channel or ":" in where.channel or where.channel in _NOT_CHANNELS:
        raise InputError(f"channel {where.channel!r} cannot stand in a session key; give its adapter another name")
    if not where.peer or where.thread == "":
        raise InputError(f"channel {where.channel!r}: a conversation needs a peer, and a thread that is not empty")
    bound = max((one for one in rules.bindings if one.holds_for(where)), key=lambda one: one.weight, default=None)
    agent = bound.agent if bound is not None else rules.default_agent
    scope = rules.dm_scopes.get(agent, rules.dm_scope)
    key = validate_key(_key(agent, where, scope))
    home, person = _home(agent, where, scope, rules.identities)
    return Routed(agent, key, home if home != key else None, bound.name if bound is not None else None, person)


def _key(agent: str, where: Conversation, scope: DmScope) -> str:
    peer = _escaped(where.peer)
    if where.kind == "direct" and scope == "per-account-channel-peer":
        peer = f"{_escaped(where.account).replace('/', '%2F')}/{peer}"
    thread = "" if where.thread is None else f":thread:{_escaped(where.thread)}"
    return f"agent:{agent}:{where.channel}:{where.kind}:{peer}{thread}"


def _escaped(name: str) -> str:
    """A peer may hold anything; what would read as another key is escaped, so that no two conversations share one."""
    name = name.replace("%", "%25").replace(":thread:", "%3Athread%3A")
    if name.startswith("thread:"):
        name = "thread%3A" + name.removeprefix("thread:")
    if name.endswith(":thread"):
        name = name.removesuffix(":thread") + "%3Athread"
    return name.removesuffix(":heartbeat") + "%3Aheartbeat" if name.endswith(":heartbeat") else name


def _home(
    agent: str, where: Conversation, scope: DmScope, identities: Mapping[str, tuple[str, ...]]
) -> tuple[str | None, str | None]:
    """The key of the transcript that a direct message shares, and whose it is. A thread is a conversation apart."""
    if where.kind != "direct":
        return None, None
    person = person_of(f"{where.channel}:{where.peer}", identities)
    if where.thread is not None:
        return None, person
    if scope == "main":
        return f"agent:{agent}:main", person
    if scope == "per-peer" and person is not None:
        channel, _, peer = identities[person][0].partition(":")
        return f"agent:{agent}:{channel}:direct:{_escaped(peer)}", person
    return None, person


def person_of(identity: str, identities: Mapping[str, tuple[str, ...]]) -> str | None:
    """Under whose name "channel:peer" is linked."""
    return next((name for name, linked in identities.items() if identity in linked), None)


def check(rules: Rules, agents: Iterable[str]) -> list[str]:
    """Faults of the rules, each with its key's path.

    Args:
        agents: those that the configuration names.
    """
    faults: list[str] = []
    known = {*agents, rules.default_agent}
    seen: dict[tuple[tuple[str, str], ...], str] = {}
    for one in rules.bindings:
        path = f"bindings.{one.name}"
        asked = one.conditions
        if one.agent not in known:
            faults.append(f"{path}.agent: no agent {one.agent!r}; name it in [agents.{one.agent}]")
        if not asked:
            faults.append(f"{path}: no condition; the default agent takes what no binding does")
        if asked and one.channel is None and set(asked) != {"kind"}:
            faults.append(f"{path}.channel: must be set: names of peers, accounts and groups are one channel's own")
        if one.thread is not None and one.peer is None:
            faults.append(f"{path}.peer: must be set, a thread is inside of one")
        same = seen.setdefault(tuple(asked.items()), one.name)
        if same != one.name:
            faults.append(f"{path}: asks for the same as bindings.{same}, so neither is more specific")
    linked: dict[str, str] = {}
    for person, identities in rules.identities.items():
        path = f"identities.{person}"
        if not identities:
            faults.append(f"{path}: no identity; list them as channel:peer")
        for identity in identities:
            channel, colon, peer = identity.partition(":")
            if not (channel and colon and peer):
                faults.append(f'{path}: {identity!r} must be "channel:peer", such as "slack:U123"')
            other = linked.setdefault(identity, person)
            if other != person:
                faults.append(f"{path}: {identity} is linked to {other} already; a person cannot be two")
    return faults
