"""A platform that does what a test tells it to: takes messages, refuses them, hangs, loses its confirmations.

    channel = FakeChannel()
    channel.refuse(times=2)                     # then take them
    …
    await channel.arrived(1)                    # wait without sleeping
    channel.received[0].text

With a file for its platform, what has arrived outlives the process that sent it, as on a real platform.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.errors import ChannelRefusedError, SendUnknownError

PATIENCE_S = 60.0
"""Real seconds a test waits for something to happen here."""


class Received(msgspec.Struct, frozen=True):
    """One message as the user sees it. `delivery_id`: the key it came with. preview: it is the beginning of an answer.

    In a platform's file, `edits` is the place of the message that this one has taken, from 1.
    """

    delivery_id: str
    target: str
    text: str
    label: str | None = None
    preview: bool = False
    edits: int | None = None


class FakeChannel:
    """A `Channel` under a test's control. Every arrival is kept, also a second one with the same key.

    Args:
        platform: a file in which arrivals are kept, shared by all processes that name it; None: in memory.

    Attributes:
        attempts: every send that was begun, in order.
        finds: keys that were asked for with `find`.
    """

    def __init__(
        self, name: str = "test", *, traits: ChannelTraits | None = None, platform: Path | None = None
    ) -> None:
        self._name = name
        self._traits = traits or ChannelTraits(reconciles=False, longest_request_s=30.0, text_max=100_000)
        self._platform = platform
        self._received: list[Received] = []
        self._mishaps: deque[Callable[[SendRequest], None]] = deque()
        self._gate: asyncio.Event | None = None
        self._changed = asyncio.Condition()
        self._find_fails = 0
        self._keys_from = 0
        self.attempts: list[SendRequest] = []
        self.finds: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> ChannelTraits:
        return self._traits

    @property
    def received(self) -> list[Received]:
        """What has arrived, oldest first."""
        if self._platform is None:
            arrived = self._received
        elif not self._platform.exists():
            return []
        else:
            arrived = [msgspec.json.decode(line, type=Received) for line in self._platform.read_bytes().splitlines()]
        shown: list[Received] = []
        for one in arrived:
            if one.edits is None:
                shown.append(one)
            else:
                shown[one.edits - 1] = msgspec.structs.replace(one, edits=None)
        return shown

    # ── what will go wrong ───────────────────────────────────────────────────────────────────────────────────────────

    def refuse(self, times: int = 1, *, permanent: bool = False, retry_after_s: float | None = None) -> None:
        """The next sends are refused; nothing arrives."""

        def mishap(_: SendRequest) -> None:
            raise ChannelRefusedError("refused by the test", permanent=permanent, retry_after_s=retry_after_s)

        self._mishaps.extend([mishap] * times)

    def lose_confirmation(self, times: int = 1) -> None:
        """The next messages arrive, but whoever sent them never hears of it."""

        def mishap(request: SendRequest) -> None:
            self._take(request)
            raise SendUnknownError("connection lost before the answer")

        self._mishaps.extend([mishap] * times)

    def lose_request(self, times: int = 1) -> None:
        """The next messages do not arrive, and whoever sent them cannot tell."""

        def mishap(_: SendRequest) -> None:
            raise SendUnknownError("connection lost")

        self._mishaps.extend([mishap] * times)

    def forget_keys(self) -> None:
        """Where keys are kept: those of what has arrived so far are forgotten."""
        self._keys_from = len(self.received)

    def fail_find(self, times: int = 1) -> None:
        """The next questions whether a message has arrived get no answer."""
        self._find_fails += times

    def hold(self) -> None:
        """From now on no send ends before `release`: the message is on its way and has not arrived."""
        self._gate = asyncio.Event()

    def release(self) -> None:
        """Let everything held, and all later sends, go on."""
        if self._gate is not None:
            self._gate.set()
            self._gate = None

    @property
    def holding(self) -> bool:
        """Whether sends are held now."""
        return self._gate is not None

    # ── waiting ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def begun(self, count: int = 1) -> SendRequest:
        """Wait until `count` sends in all have begun; returns the `count`th. Raises TimeoutError after `PATIENCE_S`."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.attempts) >= count)
        return self.attempts[count - 1]

    async def arrived(self, count: int = 1) -> list[Received]:
        """Wait until `count` messages have arrived in all, here or from another process. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            while len(self.received) < count:
                await self._wait_for_change()
        return self.received

    async def _wait_for_change(self) -> None:
        """Other processes cannot tell us: their file is looked at again and again."""
        try:
            await asyncio.wait_for(self._changed.wait(), None if self._platform is None else 0.05)
        except TimeoutError:
            return

    # ── the channel ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def send(self, request: SendRequest) -> Sent:
        self.attempts.append(request)
        await self._tell()
        if self._gate is not None:
            await self._gate.wait()
        try:
            if self._mishaps:
                self._mishaps.popleft()(request)
            number = self._take(request)
        finally:
            await self._tell()
        return Sent(f"#{number}")

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        self.finds.append(delivery_id)
        await self._tell()
        if not self._traits.reconciles:
            raise SendUnknownError("this platform cannot be asked")
        if self._find_fails:
            self._find_fails -= 1
            raise SendUnknownError("the platform does not answer")
        for number, one in enumerate(self.received, 1):
            if (one.delivery_id, one.target) == (delivery_id, target):
                return Sent(f"#{number}", preview=one.preview)
        return None

    edit_every_s = 1.0

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        """As of `Editor`: the same mishaps as for sends."""
        self.attempts.append(request)
        await self._tell()
        number = int(reference.removeprefix("#"))
        try:
            if self._mishaps:
                self._mishaps.popleft()(request)
            self._keep(request, number)
        finally:
            await self._tell()
        return Sent(reference)

    async def remove(self, reference: str, target: str) -> None:
        """As of `Editor`; it stays among `received`, without its text."""
        number = int(reference.removeprefix("#"))
        was = self.received[number - 1]
        self._keep(SendRequest(was.delivery_id, target, ""), number)
        await self._tell()

    def _take(self, request: SendRequest) -> int:
        """The number of the message, which is no new one where its key is kept."""
        received = self.received
        for number, one in enumerate(received, 1):
            is_known = number > self._keys_from and (one.delivery_id, one.target) == (
                request.delivery_id,
                request.target,
            )
            if self._traits.keeps_keys_s and is_known:
                if (one.text, one.preview) != (request.text, request.preview):
                    self._keep(request, number)
                return number
        self._keep(request)
        return len(received) + 1

    def _keep(self, request: SendRequest, edits: int | None = None) -> None:
        one = Received(request.delivery_id, request.target, request.text, request.label, request.preview, edits)
        if self._platform is None:
            self._received.append(one)
            return
        fd = os.open(self._platform, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(one) + b"\n")
        finally:
            os.close(fd)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
