"""The platform on which answers arrive. What has left arrives, even if whoever sent it is dead by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.channel.channel import ChannelTraits, SendRequest, Sent
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.testing.simulation.people import CHANNEL, Arrived, Seen
from holdfast.testing.simulation.scheduler import Scheduler


class SimChannel:
    """Its adapter; an `Editor`, too."""

    edit_every_s = 0.3

    def __init__(self, scheduler: Scheduler, seen: Seen, traits: ChannelTraits) -> None:
        self._scheduler = scheduler
        self._seen = seen
        self._traits = traits
        self.is_calm = False

    @property
    def name(self) -> str:
        return CHANNEL

    @property
    def traits(self) -> ChannelTraits:
        return self._traits

    async def send(self, request: SendRequest) -> Sent:
        message = Arrived(
            request.delivery_id, request.target, request.text, request.label, request.preview,
            was_preview=request.preview,
        )  # fmt: skip

        def arrive() -> None:
            self._seen.arrive(message)
            self._scheduler.note(f"arrived: {request.text!r} label={request.label}{' preview' * request.preview}")

        await self._over_the_wire(arrive)
        return Sent(f"#{self._seen.arrived.index(message)}")

    async def edit(self, reference: str, request: SendRequest) -> Sent:
        message = self._seen.arrived[int(reference.removeprefix("#"))]
        if message.gone:
            raise ChannelRefusedError("no such message", permanent=True, retry_after_s=None)

        def arrive() -> None:
            self._seen.edit(message, request.text, request.label, preview=request.preview)
            self._scheduler.note(f"edited: {request.text!r} label={request.label}{' preview' * request.preview}")

        await self._over_the_wire(arrive)
        return Sent(reference)

    async def remove(self, reference: str, target: str) -> None:  # noqa: ARG002  # as of `Editor`
        message = self._seen.arrived[int(reference.removeprefix("#"))]

        def arrive() -> None:
            message.gone = True
            self._scheduler.note(f"taken away: {message.text!r}")

        await self._over_the_wire(arrive)

    async def _over_the_wire(self, arrive: Callable[[], None]) -> None:
        """A request: it is refused, lost, or arrives after a while; then its answer may be lost."""
        random = self._scheduler.random
        fate, travel_s = random.random(), random.random() * random.choice((0.01, 0.9))
        if self.is_calm:
            fate = 1.0
        if fate < 0.08:
            await asyncio.sleep(travel_s)
            raise ChannelRefusedError("busy", permanent=fate < 0.02, retry_after_s=None)
        if fate < 0.14:
            await asyncio.sleep(travel_s)
            raise SendUnknownError("connection lost, and the message with it")
        arrival = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        is_cut = {"off": False}

        def at_its_end() -> None:
            if is_cut["off"]:
                return  # cancelling closes the connection; a process that dies has sent what it had sent
            arrive()
            loop.call_soon_threadsafe(lambda: arrival.done() or arrival.set_result(None))

        self._scheduler.call_at(self._scheduler.now + travel_s, at_its_end)
        try:
            await arrival
        except asyncio.CancelledError:
            is_cut["off"] = True
            raise
        if fate < 0.22:
            raise SendUnknownError("connection lost before the answer")
        await asyncio.sleep(travel_s / 4)

    async def find(self, delivery_id: str, target: str) -> Sent | None:
        await asyncio.sleep(0.01)
        if not self._traits.reconciles:
            raise SendUnknownError("this platform cannot be asked")
        if not self.is_calm and self._scheduler.random.random() < 0.2:
            raise SendUnknownError("the platform does not answer")
        for number, one in enumerate(self._seen.arrived):
            if (one.key, one.target) == (delivery_id, target) and not one.gone:
                return Sent(f"#{number}", preview=one.preview)
        return None
