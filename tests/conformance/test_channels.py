"""The console and the platform of the test kit do what every channel does."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from holdfast.channel.channel import Channel, ChannelTraits
from holdfast.channel.console import ConsoleChannel
from holdfast.testing.channel import FakeChannel
from holdfast.testing.channel_suite import ChannelSuite, Platform


@dataclass(slots=True)
class Terminal:
    stream: io.StringIO = field(default_factory=io.StringIO)
    target: str = "me"
    last: str = ""

    @property
    def channel(self) -> Channel:
        return ConsoleChannel(self.stream)

    def shown(self) -> str:
        return self.last if self.stream.closed else self.stream.getvalue()

    def fail(self) -> None:
        self.last = self.stream.getvalue()
        self.stream.close()


@dataclass(slots=True)
class Fake:
    channel: FakeChannel
    target: str = "user"

    def shown(self) -> str:
        return "\n".join(f"{one.label or ''} {one.text}" for one in self.channel.received)

    def fail(self) -> None:
        self.channel.refuse(times=100)


class TestConsole(ChannelSuite):
    @pytest.fixture
    def platform(self) -> Platform:
        return Terminal()


class TestFakeChannel(ChannelSuite):
    @pytest.fixture(params=[True, False], ids=["reconciles", "cannot reconcile"])
    def platform(self, request: pytest.FixtureRequest) -> Platform:
        return Fake(FakeChannel(traits=ChannelTraits(reconciles=request.param)))


class TestFakeChannelOfManyProcesses(ChannelSuite):
    @pytest.fixture
    def platform(self, tmp_path: Path) -> Platform:
        traits = ChannelTraits(reconciles=True)
        return Fake(FakeChannel(traits=traits, platform=tmp_path / "platform.jsonl"))
