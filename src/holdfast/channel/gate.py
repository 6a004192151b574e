"""Who may speak to an agent: a message and the rules of its channel in, a decision out. Pure.

Direct messages go by the sender: let in, let in with a code that the owner approves (pairing), or turned away. Groups
go by the group, and in it a message has to speak to us unless the rules say otherwise. Whatever is turned away has a
reason, one of `REASONS`, by which it is counted (`holdfast channels`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from holdfast.channel.listening import Heard

DmPolicy = Literal["pairing", "allow", "open", "closed"]
GroupPolicy = Literal["allow", "open", "closed"]

REASONS: dict[str, str] = {
    "bot": "a program said it (`bots` lets programs in)",
    "empty": "there is nothing in it: no text and no file",
    "dm_closed": 'direct messages are not taken here (`dm = "closed"`)',
    "sender_not_allowed": 'its sender is not in `allow_from` (`dm = "allow"`)',
    "pairing_pending": "its sender was sent a code, which nobody has approved yet",
    "pairing_full": "too many senders wait for approval already",
    "groups_closed": 'groups are not listened to (`groups = "closed"`)',
    "group_not_allowed": "this group is not in `allow_groups`",
    "group_sender_not_allowed": "its sender is not in `group_senders`",
    "not_mentioned": "it does not speak to us (`mention`)",
}
"""Why something is not taken, and what would change it."""


@dataclass(frozen=True, slots=True)
class GateRules:
    """Rules of one channel. Names are ids of the platform, or patterns with `*`.

    Args:
        dm: direct messages are for: "pairing": `allow_from`, and others once a code was approved; "allow":
            `allow_from` and who was approved before; "open": everybody; "closed": nobody.
        groups: listened to are: "allow": `allow_groups`; "open": all; "closed": none.
        group_senders: who may speak in groups, by id or by `Heard.roles`; empty: whoever is in them.
        mention: in groups, only what speaks to us.
        bots: programs may speak. Two that answer each other never stop, so this is for relays.
    """

    dm: DmPolicy = "pairing"
    allow_from: tuple[str, ...] = ()
    groups: GroupPolicy = "allow"
    allow_groups: tuple[str, ...] = ()
    group_senders: tuple[str, ...] = ()
    mention: bool = True
    bots: bool = False


@dataclass(frozen=True, slots=True)
class LetIn:
    """It is taken."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """It is not taken; `reason` is a key of `REASONS`."""

    reason: str


@dataclass(frozen=True, slots=True)
class AskForPairing:
    """Its sender is unknown and may ask to be let in."""


Decision = LetIn | TurnedAway | AskForPairing


def decide(heard: Heard, rules: GateRules, *, approved: bool, follows: bool = False) -> Decision:
    """What to do with a message.

    Args:
        approved: the owner has approved its sender.
        follows: it was said in a thread in which we were spoken to before: there nobody repeats our name.
    """
    if heard.is_bot and not rules.bots:
        return TurnedAway("bot")
    if not heard.text.strip() and not heard.attachments:
        return TurnedAway("empty")
    if heard.kind == "direct":
        return _decide_direct(heard, rules, approved=approved)
    if rules.groups == "closed":
        return TurnedAway("groups_closed")
    if rules.groups == "allow" and not is_named(heard.peer, rules.allow_groups):
        return TurnedAway("group_not_allowed")
    if rules.group_senders and not any(is_named(one, rules.group_senders) for one in (heard.sender, *heard.roles)):
        return TurnedAway("group_sender_not_allowed")
    if rules.mention and not (heard.mentioned or follows):
        return TurnedAway("not_mentioned")
    return LetIn()


def _decide_direct(heard: Heard, rules: GateRules, *, approved: bool) -> Decision:
    if rules.dm == "closed":
        return TurnedAway("dm_closed")
    if rules.dm == "open" or approved or is_named(heard.sender, rules.allow_from):
        return LetIn()
    return AskForPairing() if rules.dm == "pairing" else TurnedAway("sender_not_allowed")


def is_named(name: str, patterns: Iterable[str]) -> bool:
    """Whether an id is one of those, `*` standing for anything. Ids are compared to the letter."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
