"""What every channel adapter has to do alike, as tests: subclass `ChannelSuite` and give it a `platform` fixture.

The platform is a stand-in of the real one (a server on loopback, a stream) with one target that takes messages. Needs
pytest with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.errors import ChannelRefusedError, SendUnknownError
from holdfast.outbox.chunks import ROOM_MIN
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE


class Platform(Protocol):
    """The other side of a channel."""

    @property
    def channel(self) -> Channel: ...

    @property
    def target(self) -> str:
        """An address that takes messages."""
        ...

    def shown(self) -> str:
        """Everything that a user of the target has been shown so far."""
        ...

    def fail(self) -> None:
        """From now on nothing arrives any more: closed, cut off or refusing."""
        ...


class ChannelSuite:
    """The conformance suite of channels."""

    async def test_its_name_and_traits_can_be_relied_on(self, platform: Platform) -> None:
        channel = platform.channel
        assert channel.name
        assert ":" not in channel.name, "routes are shown as channel:target"
        assert channel.traits == channel.traits
        assert channel.traits.longest_request_s > 0
        assert channel.traits.text_max >= ROOM_MIN + len(POSSIBLE_DUPLICATE) + 1

    async def test_a_confirmed_message_is_there(self, platform: Platform) -> None:
        assert isinstance(await platform.channel.send(SendRequest("d_1", platform.target, "hello")), Sent)
        assert platform.shown().count("hello") == 1

    async def test_a_copy_is_marked_before_its_text(self, platform: Platform) -> None:
        await platform.channel.send(SendRequest("d_1", platform.target, "hello", POSSIBLE_DUPLICATE))
        assert f"{POSSIBLE_DUPLICATE} hello" in platform.shown()

    async def test_messages_arrive_in_the_order_of_their_calls_and_whole(self, platform: Platform) -> None:
        texts = ["first\nof two lines", "second, with Grüße", "x" * (platform.channel.traits.text_max // 2)]
        for number, text in enumerate(texts):
            await platform.channel.send(SendRequest(f"d_{number}", platform.target, text))
        places = [platform.shown().index(text) for text in texts]
        assert places == sorted(places)

    async def test_calls_for_the_same_adapter_may_overlap(self, platform: Platform) -> None:
        requests = [SendRequest(f"d_{number}", platform.target, f"text {number}.") for number in range(5)]
        await asyncio.gather(*(platform.channel.send(request) for request in requests))
        assert all(platform.shown().count(request.text) == 1 for request in requests)

    async def test_what_does_not_arrive_is_never_confirmed(self, platform: Platform) -> None:
        platform.fail()
        before = platform.shown()
        with pytest.raises((ChannelRefusedError, SendUnknownError)):
            await platform.channel.send(SendRequest("d_1", platform.target, "hello"))
        assert platform.shown() == before

    async def test_the_same_key_again_makes_no_second_message_where_keys_are_kept(self, platform: Platform) -> None:
        channel = platform.channel
        if not channel.traits.keeps_keys_s:
            return
        for text in ("hello", "hello", "hello to you"):
            await channel.send(SendRequest("d_1", platform.target, text))
        assert platform.shown().count("hello") == 1
        assert "hello to you" in platform.shown()

    async def test_it_finds_what_has_arrived_or_says_that_it_cannot(self, platform: Platform) -> None:
        channel = platform.channel
        await channel.send(SendRequest("d_1", platform.target, "hello"))
        if channel.traits.reconciles:
            assert isinstance(await channel.find("d_1", platform.target), Sent)
            assert await channel.find("d_2", platform.target) is None
        else:
            with pytest.raises((ChannelRefusedError, SendUnknownError)):
                await channel.find("d_1", platform.target)
