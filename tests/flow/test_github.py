"""GitHub from end to end: a gateway, webhooks and a stand-in of GitHub over sockets, with all that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Config
from holdfast.testing.model import ScriptedModel
from holdfast.testing.served import Served, served
from holdfast.testing.world import echo
from tests.flow.test_slack import delivered
from tests.flow.test_streaming import ANSWER, BEGIN, Halting
from tests.platforms.github import ENV, ME, MY_ID, REPO, GitHubStandIn, github_stand_in, quick_adapter

HELLO = f"@{ME} hello"
SESSION = f"agent:main:github:channel:{REPO}:thread:12"


@asynccontextmanager
async def talking(
    tmp_path: Path, *, model: ScriptedModel | None = None, quick: bool = False, reconciles: bool = True,
    one_comment: bool = False, **own: Any,
) -> AsyncIterator[tuple[GitHubStandIn, Served, str]]:  # fmt: skip
    """A gateway that GitHub calls; with the address at which it does. quick: a comment without an answer is looked for
    after a second.
    """
    async with github_stand_in() as github:
        table = {"allow_groups": ["octo-org/*"], "github": github.table(one_comment=one_comment), **own}
        adapters = {"github": quick_adapter(github, reconciles=reconciles, one_comment=one_comment)} if quick else {}
        async with served(
            tmp_path, model=model or ScriptedModel(otherwise=echo), env=ENV, adapters=adapters,
            config=Config.model_validate({"channels": {"github": table}}),
        ) as gateway:  # fmt: skip
            yield github, gateway, f"{gateway.url}/channels/github"


async def test_a_mention_is_answered_by_a_comment_and_its_issue_goes_on_without_mentions(tmp_path: Path) -> None:
    async with talking(tmp_path, reaction="eyes") as (github, gateway, url):
        payload = github.event(HELLO)
        told = await github.posts(url, payload)
        assert (told.status_code, told.text) == (200, "taken")
        await github.shows("re: [octocat] (on octo-org/octo-repo#12, It breaks)\nhello")
        assert (await github.says(url, "and?", login="hubot-fan", user=8)).text == "taken"
        await github.shows("re: [hubot-fan] (on octo-org/octo-repo#12, It breaks)\nand?")
        assert (await github.says(url, "/status", number=12)).text == "taken"
        assert {view.session for view in await gateway.hf.inputs(limit=10)} == {SESSION}
        assert (f"issues/comments/{payload['comment']['id']}", "eyes") in github.signs
        assert await delivered(gateway, 3) == ["sent", "sent", "sent"]


async def test_what_is_opened_is_a_message_and_a_pull_request_is_an_issue(tmp_path: Path) -> None:
    async with talking(tmp_path, mention=False) as (github, gateway, url):
        user = {"login": "octocat", "id": 7, "type": "User"}
        opened = {
            "action": "opened", "repository": {"full_name": "Octo-Org/Octo-Repo"},
            "pull_request": {"number": 13, "id": 6, "title": "Mend it", "body": "As said.", "user": user,
                             "author_association": "OWNER", "created_at": "2026-01-01T00:00:00Z"},
        }  # fmt: skip
        assert (await github.posts(url, opened, event="pull_request")).text == "taken"
        await github.shows("re: [octocat] octo-org/octo-repo#13 was opened: Mend it\n\nAs said.", 13)
        review = {
            "action": "created", "repository": {"full_name": REPO}, "pull_request": opened["pull_request"],
            "comment": {"id": 8, "body": "why?", "user": user, "author_association": "OWNER", "path": "a.py",
                        "line": 5},
        }  # fmt: skip
        assert (await github.posts(url, review, event="pull_request_review_comment")).text == "taken"
        await github.shows("re: [octocat] (on octo-org/octo-repo#13, Mend it, a.py line 5)\nwhy?", 13)
        for event in ("push", "ping", "check_run"):
            assert (await github.posts(url, {"zen": "Keep it simple."}, event=event)).status_code == 200
        for action in ("edited", "deleted"):
            await github.posts(url, {**github.event(HELLO), "action": action})
        assert len(await gateway.hf.inputs(limit=10)) == 2


async def test_a_comment_that_is_told_of_many_times_is_one(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        payload = github.event(HELLO)
        told = await asyncio.gather(*(github.posts(url, payload) for _ in range(8)))
        assert sorted(one.text for one in told) == ["duplicate"] * 7 + ["taken"]
        assert await delivered(gateway) == ["sent"]
        assert len(github.shown()) == len(await gateway.hf.inputs(limit=10)) == 1


async def test_what_is_not_signed_is_not_looked_at(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        payload = github.event(HELLO)
        good = {"content-type": "application/json"}
        answers = [
            await github.posts(url, payload, secret="another"),
            await github.posts(url, payload, headers={"x-hub-signature-256": ""}),
            await github.posts(url, payload, headers={"x-hub-signature-256": "sha1=" + "0" * 40}),
            await github.posts(url, payload, headers={"x-hub-signature-256": "sha256=" + "0" * 64}),
            await github.posts(url, payload, headers={"content-type": "application/x-www-form-urlencoded"}),
            await github.posts(url, payload, headers=good, event="issues"),
        ]
        assert [one.status_code for one in answers] == [401, 401, 401, 401, 415, 200]
        assert await gateway.hf.inputs(limit=10) == []
        assert github.calls == []


TURNED_AWAY: list[tuple[dict[str, Any], str]] = [
    ({"association": "NONE"}, "group_sender_not_allowed"),
    ({"association": "CONTRIBUTOR"}, "group_sender_not_allowed"),
    ({"repo": "other-org/repo"}, "group_not_allowed"),
    ({"kind": "Bot", "login": "dependabot[bot]"}, "bot"),
    ({"text": "talk among people"}, "not_mentioned"),
    ({"text": f"> @{ME} said\n\nindeed"}, "not_mentioned"),
    ({"text": f"`@{ME}` is its name"}, "not_mentioned"),
    ({"text": f"@{ME}"}, "empty"),
]


async def test_the_gate_turns_away_whom_it_should(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        for facts, _ in TURNED_AWAY:
            said = await github.says(url, facts.get("text", HELLO), **{k: v for k, v in facts.items() if k != "text"})
            assert (said.status_code, said.text) == (200, "ignored")
        assert await gateway.hf.inputs(limit=10) == []
        counts = await gateway.hf.store.turned_away(channel="github")
        assert {one.reason for one in counts} == {reason for _, reason in TURNED_AWAY}
        assert sum(one.times for one in counts) == len(TURNED_AWAY)


async def test_whoever_is_named_by_id_may_speak_whatever_they_are_there(tmp_path: Path) -> None:
    async with talking(tmp_path, group_senders=["7"]) as (github, _, url):
        assert (await github.says(url, HELLO, association="NONE", user=7)).text == "taken"
        assert (await github.says(url, HELLO, association="OWNER", user=8)).text == "ignored"


async def test_its_own_comments_are_never_heard(tmp_path: Path) -> None:
    async with talking(tmp_path, mention=False, bots=True) as (github, gateway, url):
        for facts in ({"login": "renamed", "user": MY_ID}, {"login": ME.upper(), "user": 1}):
            assert (await github.says(url, HELLO, **facts)).text == "nothing that was said to us"
        marked = "an answer\n\n<!-- holdfast:d_1 -->"
        assert (await github.says(url, marked)).text == "nothing that was said to us"
        assert await gateway.hf.inputs(limit=10) == []


@pytest.mark.promise("P4")
@pytest.mark.parametrize("one_comment", [False, True])
async def test_an_answer_whose_confirmation_is_lost_is_found_and_shown_once(tmp_path: Path, one_comment: bool) -> None:
    async with talking(tmp_path, quick=True, one_comment=one_comment) as (github, gateway, url):
        await github.says(url, "/status is not asked here", number=1)  # learns who we are, without a fault
        github.lose_answer("POST")
        await github.says(url, HELLO)
        assert await delivered(gateway) == ["sent"]
        assert len(github.shown()) == 1
        assert f"GET /repos/{REPO}/issues/12/comments" in github.calls


@pytest.mark.promise("P4")
async def test_an_answer_that_github_lost_goes_out_again_without_a_label(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True) as (github, gateway, url):
        github.fault("POST", status=502)
        await github.says(url, HELLO)
        assert await delivered(gateway) == ["sent"]
        [shown] = github.shown()
        assert shown.startswith("re: ")


@pytest.mark.promise("P4")
async def test_where_github_cannot_be_asked_a_labelled_copy_goes_out(tmp_path: Path) -> None:
    async with talking(tmp_path, quick=True, reconciles=False) as (github, gateway, url):
        github.lose_answer("POST")
        await github.says(url, HELLO)
        assert await delivered(gateway) == ["sent"]
        first, second = github.shown()
        assert second == f"(may be a duplicate) {first}"


async def test_a_secondary_limit_delays_an_answer_and_loses_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        github.fault("POST", status=403, message="You have exceeded a secondary rate limit.",
                     headers={"Retry-After": "1"})  # fmt: skip
        await github.says(url, HELLO)
        await github.until(lambda: len(github.calls) >= 2, "it was refused")
        assert github.shown() == []
        assert await delivered(gateway) == ["sent"], "after the pause of the outbox, which is longer"
        assert len(github.shown()) == 1


async def test_a_locked_issue_ends_the_delivery_with_its_reason(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        github.closed.add(REPO)
        await github.says(url, HELLO)
        assert await delivered(gateway) == ["failed"]
        [row] = await gateway.hf.deliveries()
        assert "issue is locked" in (row.detail or "")


async def test_a_message_is_not_taken_while_github_does_not_say_who_we_are(tmp_path: Path) -> None:
    async with talking(tmp_path) as (github, gateway, url):
        github.fault("GET", status=500)
        payload = github.event(HELLO)
        assert (await github.posts(url, payload)).status_code == 503
        assert await gateway.hf.inputs(limit=10) == []
        assert (await github.posts(url, payload)).text == "taken"


@pytest.mark.promise("P4")
async def test_an_answer_is_shown_while_it_is_written_and_stays_one_comment(tmp_path: Path) -> None:
    model = Halting(ANSWER)
    async with talking(tmp_path, model=model, quick=True, streaming="partial") as (github, gateway, url):
        await github.says(url, HELLO)
        await github.shows(f"{BEGIN} …")
        github.lose_answer("PATCH")
        model.may_go_on.set()
        await github.shows(ANSWER)
        assert await delivered(gateway) == ["sent"]
        assert github.shown() == [ANSWER]
