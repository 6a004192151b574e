"""From what was heard on a platform to an input: the gate, the route, the one door. One for each channel.

Everything is durable when `hear` returns: what was taken is an input, an unknown sender's code is in the ledger and on
its way, and so is the word to a sender whose message found no room. What the gate turns away is counted with its
reason.
"""

from __future__ import annotations

import logging
from typing import Any

from holdfast.channel.gate import AskForPairing, GateRules, LetIn, TurnedAway, decide
from holdfast.channel.listening import Heard, Reactions, Receipt
from holdfast.errors import ChannelError, InputConflictError
from holdfast.inbound.announcement import event_of
from holdfast.inbound.attachments import AttachmentLimits, read_attachments
from holdfast.inbound.event import Duplicate, InboundEvent, LaneFull, Route
from holdfast.inbound.pairing import busy_text, pairing_text
from holdfast.inbound.route import Conversation, Routed, Rules
from holdfast.inbound.route import route as choose_session
from holdfast.kernel import Holdfast
from holdfast.text import on_one_line

NAME_CHARS_MAX = 64
BUSY_TOLD_MS = 60_000
"""A sender whose messages find no room is told at most once in that time."""
log = logging.getLogger("holdfast.channels")


class Hearing:
    """What one channel hands its messages to.

    Args:
        name: of the channel. rules: who may speak. routing: whose conversation it is.
        reactions, sign: puts a sign beside what was taken, if both are there.
    """

    def __init__(
        self,
        hf: Holdfast,
        name: str,
        rules: GateRules,
        routing: Rules,
        *,
        limits: AttachmentLimits = AttachmentLimits(),  # noqa: B008  # frozen
        reactions: Reactions | None = None,
        sign: str | None = None,
    ) -> None:
        self._hf = hf
        self._name = name
        self._rules = rules
        self._routing = routing
        self._limits = limits
        self._reactions = reactions
        self._sign = sign

    def exchange(self, rules: GateRules, routing: Rules, limits: AttachmentLimits, sign: str | None) -> None:
        """For what is heard from now on."""
        self._rules, self._routing, self._limits, self._sign = rules, routing, limits, sign

    async def hear(self, heard: Heard) -> Receipt:
        """As `listening.Hear`."""
        routed = choose_session(self._conversation(heard), self._routing)
        decision = decide(
            heard, self._rules, approved=await self._is_approved(heard), follows=await self._follows(heard, routed)
        )
        match decision:
            case TurnedAway():
                return self._turn_away(heard, decision.reason)
            case AskForPairing():
                return await self._pair(heard)
            case LetIn():
                return await self._take(heard, routed)

    def _conversation(self, heard: Heard) -> Conversation:
        return Conversation(
            self._name, heard.kind, heard.peer, heard.account, heard.thread, heard.guild, heard.team
        )  # fmt: skip

    async def _is_approved(self, heard: Heard) -> bool:
        if heard.kind != "direct" or self._rules.dm not in ("pairing", "allow"):
            return False
        known = await self._hf.store.pairing(self._name, heard.sender)
        return known is not None and known.state == "approved"

    async def _follows(self, heard: Heard, routed: Routed) -> bool:
        """Whether its thread has a conversation already: whoever began it has spoken to us."""
        if heard.kind == "direct" or heard.thread is None or heard.mentioned or not self._rules.mention:
            return False
        return await self._hf.store.find_transcript(routed.key) is not None

    def _turn_away(self, heard: Heard, reason: str) -> Receipt:
        """Of what is said in a group only the group is noted: who talks there to others is not ours to keep."""
        sender = heard.sender if heard.kind == "direct" or reason == "group_sender_not_allowed" else ""
        peer = heard.peer if heard.kind != "direct" else ""
        self._hf.store.note_turned_away(self._name, reason, peer[:200], sender[:200])
        log.debug("channel %s: a message was not taken: %s", self._name, reason)
        return Receipt("ignored", reason=reason)

    async def _pair(self, heard: Heard) -> Receipt:
        pairing = await self._hf.store.ask_pairing(self._name, heard.sender, on_one_line(heard.sender_name))
        if pairing is None:
            return self._turn_away(heard, "pairing_full")
        if pairing.state == "approved":  # at this very moment
            return await self._take(heard, choose_session(self._conversation(heard), self._routing))
        told = await self._tell(heard, f"pairing:{heard.sender}:{pairing.code}", pairing_text(self._name, pairing.code))
        if not told:  # it was sent before: whoever writes on is told nothing more
            return self._turn_away(heard, "pairing_pending")
        log.info(
            "channel %s: unknown sender %s asks to be let in; `holdfast pairing list`",
            self._name,
            on_one_line(heard.sender),
        )
        self._hf.store.note_turned_away(self._name, "pairing_pending", "", heard.sender[:200])
        return Receipt("pairing")

    async def _take(self, heard: Heard, routed: Routed) -> Receipt:
        event = InboundEvent(
            routed.key,
            {"content": await self._content(heard)},
            source=f"channel:{self._name}",
            account=heard.account,
            key=heard.id,
            route=Route(self._name, heard.target),
            home=routed.home or routed.key,
            origin=self._origin(heard, routed),
        )
        try:
            admission = await self._hf.accept(event)
        except InputConflictError:  # told again in other words, such as an edited message: the first ones count
            known = await self._hf.store.input_by_key(event.source, event.account, heard.id)
            return Receipt("duplicate", known)
        if isinstance(admission, LaneFull):
            minute = heard.at_ms // BUSY_TOLD_MS
            await self._tell(heard, f"full:{heard.target}:{minute}", busy_text(admission.waiting))
            return Receipt("full", reason=f"lane {admission.lane!r} is full ({admission.waiting} waiting)")
        if isinstance(admission, Duplicate):
            return Receipt("duplicate", admission.input_id)
        await self._react(heard)
        return Receipt("taken", admission.input_id)

    async def _content(self, heard: Heard) -> str | list[dict[str, Any]]:
        """What the model reads. In a group everybody is named; a command is left as it is."""
        text = heard.text.strip()
        if heard.kind != "direct" and not text.startswith("/"):
            name = on_one_line(heard.sender_name or heard.sender)[:NAME_CHARS_MAX].replace("[", "(").replace("]", ")")
            text = f"[{name}] {text}"
        if not heard.attachments:
            return text
        files = await read_attachments(heard.attachments, self._limits)
        return [{"type": "text", "text": text}, *files] if text else files

    def _origin(self, heard: Heard, routed: Routed) -> dict[str, Any]:
        facts = {
            "channel": self._name, "sender": heard.sender, "name": heard.sender_name, "message": heard.id,
            "thread": heard.thread, "at_ms": heard.at_ms or None, "binding": routed.binding, "person": routed.person,
        }  # fmt: skip
        return {name: value for name, value in facts.items() if value}

    async def _tell(self, heard: Heard, key: str, text: str) -> bool:
        """Say something to a sender without any agent; False: it was said before. Durable."""
        event = event_of(f"{self._name}:{key}", None, text, f"channel:{self._name}", Route(self._name, heard.target),
                         line=False)  # fmt: skip
        admission = await self._hf.accept(event)
        if isinstance(admission, LaneFull):
            log.warning("channel %s: %s could not be told: too much waits", self._name, on_one_line(heard.sender))
        return not isinstance(admission, Duplicate)

    async def _react(self, heard: Heard) -> None:
        if self._reactions is None or not self._sign:
            return
        try:
            await self._reactions.react(heard.target, heard.id, self._sign)
        except ChannelError as exc:
            log.info("channel %s: no sign was put: %s", self._name, on_one_line(str(exc)))
