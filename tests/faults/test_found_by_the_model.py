"""A claim is not synced, so a power loss may take it from the ledger and leave what its turn wrote: the final line
counts all the same, the input's line is not written twice, and nobody is told of an end that does not last. Each of
these was found by the formal model (docs/design/0007-the-formal-model.md) and is a story of the real code here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.inbound.event import Accepted, InboundEvent, Route
from holdfast.kernel import Holdfast
from holdfast.turn.turn import Turn
from tests.faults import checks
from tests.faults.remote import GoneError, RemoteError, Troupe

KEY = "agent:main:main"
ANSWER = "the answer"
SHORT: dict[str, Any] = {"beat_s": 0.05, "beat_term_s": 0.5}


@dataclass
class Lost:
    """After the power loss: the ledger as it was when the input was accepted, the transcript as it was at the end."""

    state: Path
    input_id: str
    path: Path
    epoch: int

    def messages(self) -> list[tuple[str, str]]:
        found = [entry for entry in checks.entries(self.path) if entry["type"] == "message"]
        return [(entry["message"]["role"], checks.text_of(entry)) for entry in found]


async def accept(hf: Holdfast, text: str) -> str:
    event = InboundEvent(KEY, {"content": text}, key=text, route=Route("test", "alice"))
    accepted = await hf.accept(event)
    assert isinstance(accepted, Accepted)
    return accepted.input_id


async def lose_the_claim(state: Path, *, answered: bool) -> Lost:
    """Accept (synced), claim (not synced), write, die; then the power fails."""
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as before:  # the session has a past
            await before.append(holdfast.user("earlier"))
        input_id = await accept(hf, "question")
    ledger = state / "ledger.sqlite3"
    kept = ledger.read_bytes()
    async with holdfast.open(state) as hf:
        turn = await hf.claim(KEY, wait_s=1, input_id=input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "question"}])
        if answered:
            await turn.append(holdfast.assistant(ANSWER, model="demo/demo"), durable=True)
        path, epoch = Path(turn.transcript.path), turn.epoch.number
        before_end = path.read_bytes()
        await hf.close_turn(turn, None)
    path.write_bytes(before_end)
    for leftover in state.glob("ledger.sqlite3*"):
        leftover.unlink()
    ledger.write_bytes(kept)
    checks.reboot(state)
    return Lost(state, input_id, path, epoch)


@pytest.fixture
async def answered(state: Path) -> Lost:
    return await lose_the_claim(state, answered=True)


@pytest.fixture
async def reopened(answered: Lost) -> AsyncIterator[Holdfast]:
    async with holdfast.open(answered.state) as hf:
        assert (await hf.input(answered.input_id)).state == "queued"
        yield hf


async def is_settled_by_its_final_line(hf: Holdfast, lost: Lost) -> None:
    assert not isinstance(await hf.claim(KEY, wait_s=1, input_id=lost.input_id), Turn)
    view = await hf.input(lost.input_id)
    assert (view.state, view.answer) == ("answered", ANSWER)
    assert [one.body for one in await hf.deliveries()] == [ANSWER]
    assert [text for role, text in lost.messages() if role == "assistant"] == [ANSWER]


@pytest.mark.promise("P2", "P3")
async def test_a_final_line_counts_although_the_power_loss_took_its_claim(reopened: Holdfast, answered: Lost) -> None:
    await is_settled_by_its_final_line(reopened, answered)


@pytest.mark.promise("P2", "P3", "I4")
async def test_it_counts_too_if_somebody_elses_turn_came_first(reopened: Holdfast, answered: Lost) -> None:
    """That turn's claim brings the ledger's epoch past the one that was lost, which then no longer looks old."""
    async with reopened.turn(KEY) as other:
        assert other.epoch.number > answered.epoch
        await other.append(holdfast.user("something else"))
    await is_settled_by_its_final_line(reopened, answered)


@pytest.mark.promise("P2", "P3", "I4")
async def test_it_counts_too_if_a_metadata_writer_came_first(reopened: Holdfast, answered: Lost) -> None:
    """Its baseline makes a new fence record, which keeps the number of the newest epoch in the file."""
    await reopened.session(KEY).append_metadata(holdfast.custom("label", "mine"))
    async with reopened.turn(KEY) as other:
        assert other.epoch.number > answered.epoch
    await is_settled_by_its_final_line(reopened, answered)


@pytest.mark.promise("P2")
async def test_it_counts_too_if_somebody_asks_for_the_end_of_the_input(reopened: Holdfast, answered: Lost) -> None:
    """The final line wins over a cancel, so the canceller does not end what may have run before."""
    assert await reopened.cancel(answered.input_id, by="alice") == "requested"
    await is_settled_by_its_final_line(reopened, answered)


async def test_an_input_that_was_cancelled_unseen_and_has_no_final_line_ends_as_cancelled(state: Path) -> None:
    lost = await lose_the_claim(state, answered=False)
    async with holdfast.open(state) as hf:
        assert await hf.cancel(lost.input_id, by="alice") == "requested"
        turn = await hf.claim(KEY, wait_s=1, input_id=lost.input_id)
        assert isinstance(turn, Turn)
        with pytest.raises(holdfast.TurnCancelledError) as stopped:
            await turn.raise_if_cancelled()
        assert await hf.close_turn(turn, stopped.value) == "cancelled"


@pytest.mark.promise("P3", "I1")
async def test_the_inputs_own_line_is_not_written_twice(state: Path) -> None:
    lost = await lose_the_claim(state, answered=False)
    async with holdfast.open(state) as hf:
        async with hf.turn(KEY) as other:
            await other.append(holdfast.custom("note", 1))
        turn = await hf.claim(KEY, wait_s=1, input_id=lost.input_id)
        assert isinstance(turn, Turn)
        await turn.append_input([{"role": "user", "content": "question"}])
        await turn.append(holdfast.assistant(ANSWER, model="demo/demo"))
        assert await hf.close_turn(turn, None) == "answered"
    assert lost.messages() == [("user", "earlier"), ("user", "question"), ("assistant", ANSWER)]
    ids = [entry["id"] for entry in checks.entries(lost.path) if entry["type"] != "session"]
    assert len(set(ids)) == len(ids)


async def test_a_restart_without_a_power_loss_leaves_cancelling_as_it_is(state: Path) -> None:
    async with holdfast.open(state) as hf:
        input_id = await accept(hf, "question")
    async with holdfast.open(state) as hf:
        assert await hf.cancel(input_id, by="alice") == "cancelled"


@pytest.mark.promise("P2", "P10")
async def test_a_takeover_commits_with_a_sync_and_a_plain_claim_does_not(state: Path, processes: Troupe) -> None:
    """It may end an input (here it only queues one again), and whoever is told must not see that undone."""
    one = await processes.start(state)
    accepted = await one.call("accept", session=KEY, text="question", route="alice")
    async with holdfast.open(state) as hf:
        figures = hf.store.writer.figures  # pyright: ignore[reportAttributeAccessIssue]

        async def synced_commits_of_a_claim() -> int:
            before = figures.durable_commits
            turn = await hf.claim(KEY, wait_s=5)
            assert isinstance(turn, Turn)
            during = figures.durable_commits - before
            await hf.close_turn(turn, None)
            return during

        assert await synced_commits_of_a_claim() == 0
        await one.call("claim", turn="t", session=KEY, wait_s=5, input_id=accepted["id"])
        await one.kill()
        assert await synced_commits_of_a_claim() == 1
        assert await synced_commits_of_a_claim() == 0


@pytest.mark.promise("P1", "I3")
async def test_a_former_owner_writes_nothing_after_its_taker_died_between_ledger_and_record(
    state: Path, processes: Troupe
) -> None:
    """The taker's ledger commit has closed the former owner's turn; its own record was never written."""
    holder = await processes.start(state, **SHORT)
    accepted = await holder.call("accept", session=KEY, text="question", route="alice")
    await holder.call("claim", turn="t", session=KEY, wait_s=5, input_id=accepted["id"])
    await holder.call("append_input", turn="t")
    await holder.stop()
    taker = await processes.start(state, **SHORT)
    await taker.call("arm", point="claim.after_commit", nth=1)
    with pytest.raises(GoneError):
        await taker.call("claim", turn="u", session=KEY, wait_s=20)
    assert await taker.dies() == -9
    [path] = checks.transcripts(state)
    before = path.read_bytes()
    holder.cont()
    with pytest.raises(RemoteError) as refused:
        await holder.call("append", turn="t", kind="assistant", text="too late")
    assert refused.value.bases[0] == "SessionTakeoverError"
    said = [entry["message"]["role"] for entry in checks.entries(path) if entry["type"] == "message"]
    assert said == ["user"]
    assert path.read_bytes().startswith(before)


@pytest.mark.promise("P5")
async def test_an_owner_goes_on_if_whoever_wanted_its_turn_died_before_the_ledger_knew(
    state: Path, processes: Troupe
) -> None:
    """The record names nobody then, and the ledger still names the owner."""
    holder = await processes.start(state, **SHORT)
    accepted = await holder.call("accept", session=KEY, text="question", route="alice")
    await holder.call("claim", turn="t", session=KEY, wait_s=5, input_id=accepted["id"])
    await holder.call("append_input", turn="t")
    await holder.stop()
    taker = await processes.start(state, **SHORT)
    await taker.call("arm", point="ledger.before_commit", nth=1)
    with pytest.raises(GoneError):
        await taker.call("claim", turn="u", session=KEY, wait_s=20)
    assert await taker.dies() == -9
    holder.cont()
    await holder.call("append", turn="t", kind="assistant", text=ANSWER)
    assert await holder.call("settle", turn="t") == "answered"
