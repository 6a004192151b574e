"""A platform on which a test speaks, and sees what is shown: `FakeChannel` with ears, edits, typing and reactions.

    platform = FakePlatform()
    async with served(state, config=config, adapters={"test": platform.adapter()}) as gateway:
        await platform.says("hello", sender="U1")        # returns once it was acknowledged
        await platform.shows("re: hello")

Every message is told again until it is acknowledged, as platforms do, also to a listener that comes later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.channel.listening import Adapter, Hear, Heard, Receipt
from holdfast.errors import ChannelError, ChannelRefusedError, SendUnknownError
from holdfast.testing.channel import PATIENCE_S


class Shown:
    """One message as the user sees it now. `versions`: its texts, oldest first."""

    def __init__(self, request: SendRequest) -> None:
        self.key, self.target, self.preview = request.delivery_id, request.target, request.preview
        self.versions = [request.labelled_text]
        self.is_gone = False

    @property
    def text(self) -> str:
        return self.versions[-1]


class FakePlatform:
    """One platform with one bot. It can do all that an adapter can; `adapter` says which of it is offered.

    Attributes:
        messages: what was sent, in order, edits applied; also those that were removed.
        signs: reactions, as (message id, sign). typed: targets for which typing was shown.
        receipts: of what was heard, by message id.
        listening: how many listeners are there now.
    """

    typing_lasts_s = 5.0

    def __init__(self, name: str = "test", *, traits: ChannelTraits | None = None, edit_every_s: float = 0.0) -> None:
        self.name = name
        self.traits = traits or ChannelTraits(reconciles=True, longest_request_s=1.0, text_max=4000)
        self.edit_every_s = edit_every_s
        self.messages: list[Shown] = []
        self.signs: list[tuple[str, str]] = []
        self.typed: list[str] = []
        self.receipts: dict[str, Receipt] = {}
        self.listening = 0
        self.edits = 0
        self._untold: dict[str, Heard] = {}
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        self._next_id = 0
        self._mishaps: deque[Callable[[], None]] = deque()
        self._broken: Exception | None = None

    def adapter(self, *, edits: bool = True, typing: bool = True, reactions: bool = True) -> Adapter:
        return Adapter(
            self,
            listener=self,
            editor=self if edits else None,
            typing=self if typing else None,
            reactions=self if reactions else None,
        )

    # ── what a test does ─────────────────────────────────────────────────────────────────────────────────────────────

    def tell(self, text: str, *, sender: str = "U1", id: str | None = None, **facts: Any) -> str:
        """Somebody says something; returns its id. It is told until it is acknowledged."""
        self._next_id += 1
        heard_id = id or f"m{self._next_id}"
        usual: dict[str, Any] = {"kind": "direct", "peer": sender, "target": sender}
        self._untold[heard_id] = Heard(id=heard_id, sender=sender, text=text, **{**usual, **facts})
        self._arrived.set()
        return heard_id

    async def says(self, text: str, **facts: Any) -> Receipt:
        """The same; returns what became of it, once it was acknowledged."""
        heard_id = self.tell(text, **facts)
        await self.until(lambda: heard_id in self.receipts and heard_id not in self._untold)
        return self.receipts[heard_id]

    async def shows(self, text: str, *, times: int = 1) -> None:
        """Wait until this is the text of so many messages."""
        await self.until(lambda: self.texts.count(text) >= times, f"{text!r} in {self.texts!r}")

    @property
    def texts(self) -> list[str]:
        """What the user sees now."""
        return [one.text for one in self.messages if not one.is_gone]

    def break_with(self, error: Exception | None) -> None:
        """Listening ends with this, and cannot be begun; None: it can again."""
        self._broken = error
        self._arrived.set()

    def lose_answer(self) -> None:
        """The next thing that is sent or edited arrives, and whoever sent it does not hear of it."""

        def mishap() -> None:
            raise SendUnknownError("connection lost before the answer")

        self._mishaps.append(mishap)

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        """Wait until something here is so; looked at whenever something has happened here."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {what}; receipts {self.receipts}") from None

    # ── listening ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def connected(self) -> bool:
        return self.listening > 0

    async def listen(self, hear: Hear) -> None:
        if self._broken is not None:
            raise self._broken
        self.listening += 1
        self._changed.set()
        try:
            while self._broken is None:
                self._arrived.clear()
                for heard_id, heard in list(self._untold.items()):
                    self.receipts[heard_id] = await hear(heard)
                    self._untold.pop(heard_id, None)
                    self._changed.set()
                await self._arrived.wait()
            raise self._broken
        finally:
            self.listening -= 1
            self._changed.set()

    # ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        self.messages.append(Shown(request))
        self._changed.set()
        self._mishap()
        return Sent(str(len(self.messages) - 1))

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        for number, one in enumerate(self.messages):
            if (one.key, one.target, one.is_gone) == (delivery_id, target, False):
                return Sent(str(number), preview=one.preview)
        return None

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        one = self.messages[int(reference)]
        if one.is_gone:
            raise ChannelRefusedError("message_not_found", permanent=True)
        self.edits += 1
        if request.labelled_text != one.text:
            one.versions.append(request.labelled_text)
        one.preview = request.preview
        self._changed.set()
        self._mishap()
        return Sent(reference)

    async def remove(self, reference: str, target: str) -> None:
        assert self.messages[int(reference)].target == target
        self.messages[int(reference)].is_gone = True
        self._changed.set()

    async def show_typing(self, target: str) -> None:
        self.typed.append(target)
        self._changed.set()

    async def react(self, target: str, message_id: str, sign: str) -> None:
        if sign == "no_such_sign":
            raise ChannelError(f"no such sign for {target}")
        self.signs.append((message_id, sign))
        self._changed.set()

    def _mishap(self) -> None:
        if self._mishaps:
            self._mishaps.popleft()()
