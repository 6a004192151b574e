"""Who may speak on a channel."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.channel.gate import REASONS, AskForPairing, Decision, GateRules, LetIn, TurnedAway, decide
from holdfast.channel.listening import Attachment, Heard


def said(text: str = "hello", **facts: Any) -> Heard:
    usual: dict[str, Any] = {"id": "1", "kind": "direct", "peer": "U1", "sender": "U1", "target": "D1"}
    return Heard(text=text, **{**usual, **facts})


def in_group(text: str = "hello", **facts: Any) -> Heard:
    return said(text, **{"kind": "channel", "peer": "C1", "target": "C1", **facts})


async def no_bytes(_: int) -> bytes:
    return b""


OPEN_GROUPS = GateRules(groups="open")
PAIRING = GateRules()
CASES: list[tuple[str, Heard, GateRules, dict[str, bool], Decision]] = [
    ("a stranger may ask to be let in", said(), PAIRING, {}, AskForPairing()),
    ("who was approved is let in", said(), PAIRING, {"approved": True}, LetIn()),
    ("who is named is let in", said(), GateRules(allow_from=("U1",)), {}, LetIn()),
    ("a pattern names many", said(), GateRules(allow_from=("U*",)), {}, LetIn()),
    ("ids are compared to the letter", said(sender="u1"), GateRules(allow_from=("U1",)), {}, AskForPairing()),
    ("a display name lets nobody in", said(sender_name="U9"), GateRules(allow_from=("U9",)), {}, AskForPairing()),
    ("an allow list asks nobody", said(), GateRules(dm="allow"), {}, TurnedAway("sender_not_allowed")),
    ("who was approved before is on it", said(), GateRules(dm="allow"), {"approved": True}, LetIn()),
    ("open is for everybody", said(), GateRules(dm="open"), {}, LetIn()),
    ("closed is for nobody", said(), GateRules(dm="closed", allow_from=("*",)), {"approved": True},
     TurnedAway("dm_closed")),
    ("programs are not listened to", said(is_bot=True), GateRules(dm="open"), {}, TurnedAway("bot")),
    ("unless they are let in", said(is_bot=True), GateRules(dm="open", bots=True), {}, LetIn()),
    ("nothing is nothing", said(" \n"), GateRules(dm="open"), {}, TurnedAway("empty")),
    ("a file alone is something", said("", attachments=(Attachment("a", "", None, no_bytes),)), GateRules(dm="open"),
     {}, LetIn()),
    ("a group has to be named", in_group(mentioned=True), PAIRING, {}, TurnedAway("group_not_allowed")),
    ("a named group", in_group(mentioned=True), GateRules(allow_groups=("C1",)), {}, LetIn()),
    ("a group that was not spoken in to us", in_group(), OPEN_GROUPS, {}, TurnedAway("not_mentioned")),
    ("a thread in which we were spoken to", in_group(thread="7"), OPEN_GROUPS, {"follows": True}, LetIn()),
    ("no mention needed", in_group(), GateRules(groups="open", mention=False), {}, LetIn()),
    ("groups closed", in_group(mentioned=True), GateRules(groups="closed", allow_groups=("C1",)), {},
     TurnedAway("groups_closed")),
    ("only some speak in groups", in_group(mentioned=True), GateRules(groups="open", group_senders=("U9",)), {},
     TurnedAway("group_sender_not_allowed")),
    ("and they do", in_group(mentioned=True), GateRules(groups="open", group_senders=("U1",)), {}, LetIn()),
    ("who was approved for direct messages has no more say in groups", in_group(), PAIRING, {"approved": True},
     TurnedAway("group_not_allowed")),
]  # fmt: skip


@pytest.mark.parametrize(("heard", "rules", "facts", "wanted"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_the_gate(heard: Heard, rules: GateRules, facts: dict[str, bool], wanted: Decision) -> None:
    assert decide(heard, rules, approved=facts.get("approved", False), follows=facts.get("follows", False)) == wanted


def test_every_reason_is_explained() -> None:
    given = {wanted.reason for *_, wanted in CASES if isinstance(wanted, TurnedAway)}
    assert given <= set(REASONS)
    assert set(REASONS) - given == {"pairing_pending", "pairing_full"}, "those that the ledger knows"
