"""GitHub's adapter does what every channel does, against a stand-in of GitHub's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from holdfast.channel.channel import Channel, SendRequest, Sent
from holdfast.channel.github import PAGES_MAX, make
from holdfast.channel.listening import Adapter, Setup
from holdfast.errors import ChannelRefusedError, InputError, SendUnknownError
from holdfast.testing.channel_suite import ChannelSuite
from tests.platforms.github import ENV, ME, REPO, GitHubStandIn, github_stand_in

USUAL = {"token_env": "GITHUB_TOKEN", "webhook_secret_env": "GITHUB_WEBHOOK_SECRET", "login": ME}
TARGET = f"{REPO}#12"
HELLO = SendRequest("d_1", TARGET, "hello")


class GitHub:
    """The platform of the suite."""

    target = TARGET

    def __init__(self, there: GitHubStandIn, adapter: Adapter) -> None:
        self.there, self.adapter = there, adapter

    @property
    def channel(self) -> Channel:
        return self.adapter.channel

    def shown(self) -> str:
        return "\n".join(self.there.shown())

    def fail(self) -> None:
        self.there.closed.add(REPO)


def adapter_for(there: GitHubStandIn, **options: Any) -> Adapter:
    return make(Setup("github", {**USUAL, **there.table(**options)}, ENV))


@pytest.fixture
async def platform() -> AsyncIterator[GitHub]:
    async with github_stand_in(page_max=3) as there:
        adapter = adapter_for(there)
        yield GitHub(there, adapter)
        assert adapter.close is not None
        await adapter.close()


class TestGitHub(ChannelSuite):
    """The suite; its fixture is the module's."""


async def test_a_comment_is_found_behind_others_and_only_if_it_is_ours(platform: GitHub) -> None:
    for number in range(4):
        platform.there.comment(f"talk {number}")
    sent = await platform.channel.send(HELLO)
    for number in range(7):
        platform.there.comment(f"more {number}")
    assert await platform.channel.find("d_1", TARGET) == sent
    platform.there.comment(platform.there.comments[4].body.replace("d_1", "d_2"), login="mallory")
    assert await platform.channel.find("d_2", TARGET) is None
    assert await platform.channel.find("d_1", f"{REPO}#13") is None, "it is not in another conversation"


async def test_what_an_answer_quotes_is_no_marker(platform: GitHub) -> None:
    await platform.channel.send(SendRequest("d_1", TARGET, "look: <!-- holdfast:d_9 -->"))
    assert await platform.channel.find("d_9", TARGET) is None


async def test_further_back_than_it_looks_nobody_can_tell(platform: GitHub) -> None:
    await platform.channel.send(HELLO)
    for number in range(3 * PAGES_MAX):
        platform.there.comment(f"talk {number}")
    with pytest.raises(SendUnknownError, match="there are more"):
        await platform.channel.find("d_1", TARGET)


async def test_an_edit_is_seen_and_makes_a_preview_the_answer(platform: GitHub) -> None:
    editor = platform.adapter.editor
    assert editor is not None
    sent = await platform.channel.send(SendRequest("d_1", TARGET, "hel", preview=True))
    assert await platform.channel.find("d_1", TARGET) == Sent(sent.reference, preview=True)
    await editor.edit(str(sent.reference), HELLO)
    await editor.edit(str(sent.reference), HELLO)
    assert await platform.channel.find("d_1", TARGET) == Sent(sent.reference)
    assert platform.there.shown() == ["hello"]
    await editor.remove(str(sent.reference), TARGET)
    await editor.remove(str(sent.reference), TARGET)
    assert platform.there.shown() == []
    with pytest.raises(ChannelRefusedError) as refused:
        await editor.edit(str(sent.reference), HELLO)
    assert refused.value.permanent


async def test_one_comment_becomes_the_newest_answer(platform: GitHub) -> None:
    adapter = adapter_for(platform.there, one_comment=True)
    assert adapter.editor is None, "a beginning would put itself in place of the last answer"
    channel = adapter.channel
    first = await channel.send(HELLO)
    platform.there.comment("talk")
    again = await channel.send(SendRequest("d_2", TARGET, "another answer"))
    assert (again, platform.there.shown()) == (first, ["another answer"])
    await channel.send(SendRequest("d_2.65000", TARGET, "and the rest of it"))
    assert platform.there.shown() == ["another answer", "and the rest of it"], "what is too long stands below"
    assert isinstance(await channel.find("d_2", TARGET), Sent)
    assert await channel.find("d_1", TARGET) is None
    platform.there.lose_answer("PATCH")
    with pytest.raises(SendUnknownError):
        await channel.send(SendRequest("d_3", TARGET, "a third"))
    assert await channel.find("d_3", TARGET) == first
    for _ in range(2):  # aiohttp asks a question twice if its connection was not new
        platform.there.lose_answer("GET")
    with pytest.raises(ChannelRefusedError) as refused:
        await channel.send(SendRequest("d_4", TARGET, "a fourth"))
    assert not refused.value.permanent, "a question whose answer was lost has sent nothing"
    assert adapter.close is not None
    await adapter.close()


async def test_a_text_of_the_greatest_length_goes_out_whole_whatever_it_names(platform: GitHub) -> None:
    for text in ("x" * platform.channel.traits.text_max, "@a " * (platform.channel.traits.text_max // 3)):
        await platform.channel.send(SendRequest("d_long", TARGET, text))
    bodies = [one.body for one in platform.there.comments]
    assert bodies[0].startswith("x" * platform.channel.traits.text_max + "\n")
    assert "@a" not in bodies[1]
    assert bodies[1].count("a ") >= platform.channel.traits.text_max // 3 - 1


async def test_a_sign_is_put_once_and_only_one_that_github_has(platform: GitHub) -> None:
    reactions = platform.adapter.reactions
    assert reactions is not None
    for _ in range(2):
        await reactions.react(TARGET, f"{TARGET}:issuecomment-5", ":eyes:")
    await reactions.react(TARGET, f"{TARGET}:issue-77", "+1")
    await reactions.react(TARGET, f"{TARGET}:pullrequestreview-6", "heart")
    assert platform.there.signs == [("issues/comments/5", "eyes"), ("issues/12", "+1")]
    with pytest.raises(ChannelRefusedError):
        await reactions.react(TARGET, f"{TARGET}:issuecomment-5", "tada")


@pytest.mark.parametrize("status", [401, 403, 404, 410, 422])
async def test_what_people_have_to_mend_is_refused_for_good(platform: GitHub, status: int) -> None:
    platform.there.fault("POST", status=status, message="Resource not accessible by personal access token")
    with pytest.raises(ChannelRefusedError, match=f"{status}.*not accessible") as refused:
        await platform.channel.send(HELLO)
    assert refused.value.permanent


NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = [
    (429, {"Retry-After": "37"}, "", 37.0),
    (403, {"Retry-After": "37"}, "You have exceeded a secondary rate limit.", 37.0),
    (403, {}, "You have exceeded a secondary rate limit. Please wait a few minutes.", 60.0),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int((NOW + timedelta(seconds=90)).timestamp())),
           "Date": format_datetime(NOW, usegmt=True)}, "API rate limit exceeded", 90.0),
    (403, {"X-RateLimit-Remaining": "0"}, "API rate limit exceeded", 60.0),
    (422, {}, "was submitted too quickly", 60.0),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "message", "pause_s"), LIMITS)
async def test_a_limit_is_told_with_its_pause_and_kept_to(
    platform: GitHub, status: int, headers: dict[str, str], message: str, pause_s: float
) -> None:
    platform.there.fault("POST", status=status, headers=headers, message=message)
    for _ in range(2):
        with pytest.raises(ChannelRefusedError) as refused:
            await platform.channel.send(HELLO)
        assert not refused.value.permanent
        assert refused.value.retry_after_s == pytest.approx(pause_s, abs=5)
    assert len(platform.there.calls) == 1, "while a limit is known nothing is asked"


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize("fault", [{"status": 502}, {"cut": True}], ids=["502", "cut"])
async def test_whatever_may_have_been_done_is_unknown_and_found(
    platform: GitHub, fault: dict[str, Any], done: bool
) -> None:
    platform.there.fault("POST", done=done, **fault)
    with pytest.raises(SendUnknownError):
        await platform.channel.send(HELLO)
    assert len(platform.there.calls) == 1, "nothing is tried again in here"
    assert (await platform.channel.find("d_1", TARGET) is not None) == done


async def test_a_repository_that_was_renamed_is_followed_on_its_own_host_alone(platform: GitHub) -> None:
    platform.there.moved[REPO] = "octo-org/new-name"
    await platform.channel.send(HELLO)
    assert platform.there.shown(repo="octo-org/new-name") == ["hello"]
    platform.there.fault("POST", status=307, headers={"Location": "http://evil.example/repos/a/b"})
    with pytest.raises(ChannelRefusedError, match="another host"):
        await platform.channel.send(HELLO)


async def test_github_that_cannot_be_reached_has_refused() -> None:
    adapter = make(Setup("github", {**USUAL, "api_url": "http://127.0.0.1:9"}, ENV))
    with pytest.raises(ChannelRefusedError, match="no connection") as refused:
        await adapter.channel.send(HELLO)
    assert not refused.value.permanent
    assert adapter.close is not None
    await adapter.close()


async def test_a_cancelled_send_closes_its_connection(platform: GitHub) -> None:
    answer = platform.there.hold("POST")
    sending = asyncio.create_task(platform.channel.send(HELLO))
    await platform.there.until(lambda: len(platform.there.comments) == 1)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    answer.set()
    assert isinstance(await platform.channel.find("d_1", TARGET), Sent)


@pytest.mark.parametrize("target", ["", "octo-org#1", "octo-org/x", "a/b#0", "a/../b#1", "a/b#1/../../user", "a/b?x#1"])
async def test_a_target_that_is_no_issue_is_refused_for_good(platform: GitHub, target: str) -> None:
    with pytest.raises(ChannelRefusedError) as refused:
        await platform.channel.send(SendRequest("d_1", target, "hello"))
    assert (refused.value.permanent, platform.there.calls) == (True, [])


@pytest.mark.parametrize("missing", list(ENV))
async def test_a_secret_that_is_missing_is_named(missing: str) -> None:
    env = {name: value for name, value in ENV.items() if name != missing}
    with pytest.raises(InputError, match=missing):
        make(Setup("github", USUAL, env))
