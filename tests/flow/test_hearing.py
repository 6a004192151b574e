"""What people say on a platform comes in once, or is turned away with a reason; the answer goes back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.channel.listening import Attachment, Hear, Heard, Posted, Reply
from holdfast.config import Config
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.gateway.channels import find_maker
from holdfast.inbound.admitting import approve
from holdfast.inbound.pairing import PENDING_MAX
from holdfast.testing.model import ScriptedModel
from holdfast.testing.platform import FakePlatform
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from holdfast.tool.policy import Caller, rule

OPEN = {"dm": "allow", "allow_from": ["U*"], "groups": "open"}


def config_of(more: Mapping[str, Any] | None = None, **own: Any) -> Config:
    return Config.model_validate({"channels": {"test": {**OPEN, **own}}, **(more or {})})


@asynccontextmanager
async def at_work(
    tmp_path: Path, config: Config, platform: FakePlatform, model: ScriptedModel | None = None
) -> AsyncIterator[Served]:
    model = model or ScriptedModel(otherwise=echo)
    adapters = {"test": platform.adapter()}
    async with served(tmp_path / "state", model=model, config=config, adapters=adapters) as gateway:
        yield gateway


async def in_state(gateway: Served, state: str) -> dict[str, Any]:
    """The channel, once it is shown in this state."""
    async with (
        asyncio.timeout(60),
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as http,
    ):
        while True:
            shown, _ = (await http.get("/api/channels")).json()["channels"]  # the other one is the web chat
            if shown["state"] == state:
                return shown
            await gateway.hf.clock.sleep(0.05)


async def test_what_is_said_is_answered_where_it_was_said(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with at_work(tmp_path, config_of(reaction="eyes"), platform) as gateway:
        receipt = await platform.says("hello", id="m7")
        assert receipt.outcome == "taken"
        await platform.shows("re: hello")
        assert [one.target for one in platform.messages] == ["U1"]
        view = await gateway.hf.input(receipt.input_id or "")
        assert (view.session, view.source) == ("agent:main:test:direct:U1", "channel:test")
        assert platform.signs == [("m7", "eyes")]


@pytest.mark.promise("P2", "P3")
async def test_what_is_told_twice_is_heard_once_also_in_other_words(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with at_work(tmp_path, config_of(), platform):
        first = await platform.says("hello", id="m1")
        again = await platform.says("hello", id="m1")
        edited = await platform.says("hello!", id="m1")
        assert [one.outcome for one in (first, again, edited)] == ["taken", "duplicate", "duplicate"]
        assert {one.input_id for one in (first, again, edited)} == {first.input_id}
        await platform.shows("re: hello")
        await platform.says("next", id="m2")
        await platform.shows("re: next")
        assert platform.texts == ["re: hello", "re: next"]


async def test_a_stranger_gets_a_code_and_is_let_in_once_it_was_approved(tmp_path: Path) -> None:
    platform = FakePlatform()

    async def run(*words: str) -> str:
        command = [sys.executable, "-m", "holdfast", "--state", str(tmp_path / "state"), *words]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        return out.decode()

    async with at_work(tmp_path, config_of(dm="pairing", allow_from=[]), platform) as gateway:
        assert (await platform.says("let me in", sender_name="Eve\x1b[31m")).outcome == "pairing"
        await platform.until(lambda: len(platform.texts) == 1)
        [waiting] = json.loads(await run("--json", "pairing", "list"))
        assert waiting["code"] in platform.texts[0]
        assert "\x1b" not in await run("pairing", "list")

        assert (await platform.says("hello?")).reason == "pairing_pending"
        assert await gateway.hf.inputs(session="agent:main:test:direct:U1") == []

        assert "approved" in await run("pairing", "approve", "test", waiting["code"].lower())
        assert (await platform.says("hello")).outcome == "taken"
        await platform.shows("re: hello")
        assert len(platform.texts) == 2, "the code was told once"

        await run("pairing", "revoke", "test", "U1")
        assert (await platform.says("still there?")).outcome == "pairing"


async def test_strangers_cannot_fill_the_list_and_codes_end(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with at_work(tmp_path, config_of(dm="pairing", allow_from=[]), platform) as gateway:
        asked = [await platform.says("hi", sender=f"X{number}") for number in range(PENDING_MAX + 1)]
        assert [one.outcome for one in asked] == ["pairing"] * PENDING_MAX + ["ignored"]
        assert asked[-1].reason == "pairing_full"
        codes = {one.code for one in await gateway.hf.store.pairings()}
        assert len(codes) == PENDING_MAX
        with pytest.raises(InputError, match="no code"):
            await approve(gateway.hf, "other", codes.pop(), by="test")


async def test_in_groups_it_answers_who_speaks_to_it_and_goes_on_in_the_thread(tmp_path: Path) -> None:
    platform = FakePlatform()
    room: dict[str, Any] = {"kind": "channel", "peer": "C1", "sender_name": "Ann"}
    async with at_work(tmp_path, config_of(), platform) as gateway:
        assert (await platform.says("lunch?", **room, target="C1")).reason == "not_mentioned"
        assert (await platform.says("hey", **room, target="C1/7", thread="7")).reason == "not_mentioned"
        taken = await platform.says("hey", **room, target="C1/7", thread="7", mentioned=True)
        assert taken.outcome == "taken"
        assert (await platform.says("and this?", **room, target="C1/7", thread="7")).outcome == "taken"
        await platform.shows("re: [Ann] and this?")
        assert {one.target for one in platform.messages} == {"C1/7"}

        shown = await in_state(gateway, "listening")
        [away] = shown["turned_away"]
        assert (away["reason"], away["peer"], away["sender"], away["times"]) == ("not_mentioned", "C1", "", 2)


async def test_nothing_is_acknowledged_that_could_not_be_stored(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with at_work(tmp_path, config_of(), platform) as gateway:
        await platform.until(lambda: platform.listening == 1)
        gateway.hf.drain()
        platform.tell("hello", id="m1")
        await platform.until(lambda: platform.listening == 0)
        assert "m1" not in platform.receipts
    platform.messages.clear()
    async with at_work(tmp_path, config_of(), platform):  # the next gateway hears it
        await platform.shows("re: hello")


async def test_of_two_gateways_one_listens_and_the_other_takes_over(tmp_path: Path) -> None:
    one, other = FakePlatform(), FakePlatform()
    async with at_work(tmp_path, config_of(), other) as second:
        await other.until(lambda: other.listening == 1)
        async with at_work(tmp_path, config_of(), one) as first:
            [row] = await first.hf.store.listeners()
            assert row.process == second.hf.process_id
            assert one.listening == 0
            await second.gateway.drain(0.0)
            await one.until(lambda: one.listening == 1)
            assert other.listening == 0


async def test_a_connection_that_is_lost_is_made_again_and_one_that_is_refused_is_told(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with at_work(tmp_path, config_of(), platform) as gateway:
        await platform.until(lambda: platform.listening == 1)
        platform.break_with(SendUnknownError("reset by peer"))
        await platform.until(lambda: platform.listening == 0)
        platform.break_with(None)
        await platform.says("hello")  # after a pause
        platform.break_with(ChannelRefusedError("token_revoked", permanent=True))
        await platform.until(lambda: platform.listening == 0)
        shown = await in_state(gateway, "refused")
        assert shown["detail"] == "token_revoked"


async def test_files_are_read_within_bounds_and_named_beyond_them(tmp_path: Path) -> None:
    platform, model = FakePlatform(), ScriptedModel(otherwise=echo)
    asked: list[int] = []

    def file(name: str, kind: str, data: bytes, size: int | None = None) -> Attachment:
        async def fetch(bytes_max: int) -> bytes:
            asked.append(bytes_max)
            if name == "gone.txt":
                raise ChannelRefusedError("file_not_found", permanent=True)
            return data

        return Attachment(name, kind, size, fetch)

    files = (
        file("a.png", "image/png", b"PNG"),
        file("notes.txt", "text/plain; charset=utf-8", b"buy milk"),
        file("gone.txt", "text/plain", b""),
        file("huge.png", "image/png", b"", size=50_000_000),
        file("[x] report.pdf", "application/pdf", b"", size=12),
    )
    async with at_work(tmp_path, config_of(attachments_max=4), platform, model) as gateway:
        receipt = await platform.says("look", attachments=files)
        view = await gateway.hf.wait_input(receipt.input_id or "", 10)
        text, image, notes, gone, huge, report = view.payload["content"]
        assert (text["text"], image["mimeType"], image["data"]) == ("look", "image/png", "UE5H")
        assert "buy milk" in notes["text"]
        assert "could not be fetched" in gone["text"]
        assert "too large" in huge["text"]
        assert report["text"].startswith("[file (x) report.pdf (application/pdf, 12 bytes): only 4 files")
        assert len(asked) == 3, "what is named only is not fetched"
        assert view.answer is not None


async def test_a_sender_whose_message_finds_no_room_is_told(tmp_path: Path) -> None:
    platform, model = FakePlatform(), ScriptedModel(otherwise=echo)
    model.hold()
    config = config_of({"queue": {"mode": "followup", "cap": 1, "drop": "new"}, "lanes": {"queue_per_session_max": 1}})
    async with at_work(tmp_path, config, platform, model):
        outcomes = [(await platform.says(f"text {number}")).outcome for number in range(3)]
        assert outcomes[0] == "taken"
        assert outcomes[-1] == "full"
        await platform.until(lambda: any("send it again later" in text for text in platform.texts))
        model.release()


class Signed:
    """A platform that calls."""

    async def receive(self, posted: Posted, hear: Hear) -> Reply:
        if posted.headers.get("x-signature") != "good":
            return Reply(401, "wrong signature")
        said = json.loads(posted.body)
        receipt = await hear(Heard(said["id"], "direct", "U1", "U1", said["text"], "U1"))
        return Reply(200, receipt.outcome)


async def test_a_platform_may_call_with_a_signature_of_its_own_and_without_our_token(tmp_path: Path) -> None:
    platform = FakePlatform()
    adapter = replace(platform.adapter(), receiver=Signed(), listener=None)
    model = ScriptedModel(otherwise=echo)
    async with (
        served(tmp_path / "state", model=model, config=config_of(), adapters={"test": adapter}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
    ):
        said = {"id": "m1", "text": "hello"}
        good = {"x-signature": "good"}
        assert (await http.post("/channels/test", json=said)).status_code == 401
        first = await http.post("/channels/test", json=said, headers=good)
        again = await http.post("/channels/test", json=said, headers=good)
        assert [(one.status_code, one.text) for one in (first, again)] == [(200, "taken"), (200, "duplicate")]
        await platform.shows("re: hello")
        assert (await http.post("/channels/other", json=said, headers=good)).status_code == 401
        assert (await http.get("/api/channels")).status_code == 401
        gateway.hf.drain()
        draining = await http.post("/channels/test", json={**said, "id": "m2"}, headers=good)
        assert draining.status_code == 503
        for _ in range(20):
            await http.post("/channels/test", json=said)
        assert (await http.post("/channels/test", json=said)).status_code == 429
        assert (
            await http.post("/channels/test", json=said, headers=good)
        ).status_code == 503  # it is heard all the same


async def test_strangers_who_may_write_are_not_trusted_for_that(tmp_path: Path) -> None:
    config = config_of(dm="open")
    policy = config.tools.gate(name for name, one in config.channels.items() if one.is_open).policy
    stranger = Caller("main", "main", "test", "agent:main:test:direct:U1")
    known = Caller("main", "main", "other", "agent:main:other:direct:U1")
    assert rule(policy, stranger, "exec", "run").say == "deny"
    assert rule(policy, stranger, "read", "read").say == "allow"
    assert rule(policy, known, "exec", "run").say == "ask"


def test_a_channel_that_cannot_be_made_is_named() -> None:
    with pytest.raises(InputError, match=r"channels\.x: no channel of kind 'nonsense'; there are: .*slack"):
        find_maker("x", "nonsense")
