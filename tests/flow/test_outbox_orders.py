"""What people decide about deliveries, and what is too old to go out unasked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from holdfast.cli.main import run
from holdfast.errors import InputError
from holdfast.outbox import orders
from holdfast.outbox.outbox import POSSIBLE_DUPLICATE
from holdfast.store.views import DeliveryView
from holdfast.testing.channel import FakeChannel
from holdfast.testing.world import World
from tests.flow.test_delivery import SESSION, delivery, traits


async def refused(world: World) -> DeliveryView:
    """Wait until the channel has refused the newest delivery."""
    with world.hf.events.subscribe() as events:
        async with asyncio.timeout(60):
            while not (newest := await delivery(world, "pending")).attempts:
                await events.next(timeout_s=0.05)
    return newest


async def test_what_was_refused_for_good_is_sent_by_an_operators_wish_without_a_label(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse(permanent=True)
        await world.inbound(SESSION, "hello")
        failed = await delivery(world, "failed")
        moved = await orders.retry(world.hf, failed.id, by="me")
        assert (moved.state, moved.attempts) == ("pending", 0)
        await world.saw("re: hello")
        sent = await delivery(world, "sent")
        assert (sent.id, sent.label) == (failed.id, None)
        told = [line.text for line in (await world.hf.why(sent.input_id)).lines]
        assert any("somebody's wish" in text and "by me" in text for text in told), told


@pytest.mark.promise("P4")
async def test_what_may_have_arrived_is_sent_again_with_a_label(tmp_path: Path) -> None:
    async with World(tmp_path, channel=FakeChannel(traits=traits(on_unknown="report"))) as world:
        world.channel.lose_confirmation()
        await world.inbound(SESSION, "hello")
        await world.idle(passing_s=120)
        failed = await delivery(world, "failed")
        await orders.retry(world.hf, failed.id, by="me")
        await world.saw("re: hello", times=2)
        assert [got.label for got in world.channel.received] == [None, POSSIBLE_DUPLICATE]


async def test_what_is_dropped_is_never_sent_and_frees_its_target(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.channel.refuse(retry_after_s=600)
        await world.inbound(SESSION, "first")
        first = await refused(world)
        await world.settled(await world.inbound(SESSION, "second"))
        dropped = await orders.drop(world.hf, first.id, by="me")
        assert dropped.state == "dropped"
        await world.saw("re: second")
        assert [got.text for got in world.channel.received] == ["re: second"]
        with pytest.raises(InputError, match="is dropped: only one that failed"):
            await orders.retry(world.hf, first.id, by="me")
        assert (await world.hf.input(first.input_id)).answer == "re: first"


async def test_what_is_sent_or_unknown_here_cannot_be_decided_upon(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.inbound(SESSION, "hello")
        sent = await delivery(world, "sent")
        with pytest.raises(InputError, match="is sent: it can no longer be dropped"):
            await orders.drop(world.hf, sent.id, by="me")
        with pytest.raises(InputError, match="no delivery 'd_nosuch'"):
            await orders.retry(world.hf, "d_nosuch", by="me")


async def test_what_stood_still_for_a_day_goes_out_only_when_somebody_asks(tmp_path: Path) -> None:
    """As after a weekend without a gateway."""
    async with World(tmp_path) as world:
        world.channel.refuse(retry_after_s=600)
        await world.inbound(SESSION, "on friday")
        await refused(world)
        world.clock.set_wall_clock(25 * 3600)
        await world.restart()
        failed = await delivery(world, "failed")
        assert "could not be sent for 25 h" in (failed.detail or "")
        assert world.channel.received == []
        await orders.retry(world.hf, failed.id, by="me")
        await world.saw("re: on friday")


async def given_up(path: Path) -> str:
    async with World(path) as world:
        world.channel.refuse(permanent=True)
        await world.inbound(SESSION, "hello")
        return f"{world.state} {(await delivery(world, 'failed')).id}"


def test_the_commands_list_show_retry_and_drop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, failed = asyncio.run(given_up(tmp_path)).split()

    def say(*words: str) -> tuple[int, str, str]:
        code = run(["--state", state, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert say("outbox")[0] == say("outbox", "list", "--in-state", "failed")[0] == 1
    code, out, _ = say("outbox", "show", failed)
    assert (code, "will not take it" in out, out.endswith("\nre: hello\n")) == (0, True, True), out
    assert json.loads(say("--json", "outbox", "show", failed)[1])["state"] == "failed"
    code, out, _ = say("outbox", "retry", failed)
    assert (code, out.startswith(f"{failed}: pending, to be sent again, by holdfast outbox retry")) == (0, True), out
    [dropped] = json.loads(say("--json", "outbox", "drop", failed)[1])
    assert dropped["state"] == "dropped"
    assert say("outbox")[0] == 0
    code, _, err = say("outbox", "retry", failed)
    assert (code, "only one that failed is sent again" in err) == (1, True), err
    assert say("outbox", "show", "d_nosuch")[0] == 1
