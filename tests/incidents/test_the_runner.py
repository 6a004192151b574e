"""The runner is tested before it is believed: planted mutations of runner and product must turn scenarios red."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from holdfast.errors import SessionTakeoverError
from holdfast.inbound.child import END
from holdfast.inbound.event import InboundEvent
from holdfast.session.fence import Verdict
from holdfast.store.protocol import Store
from holdfast.testing.incidents import facts, verbs, words
from holdfast.testing.incidents.runner import Result, replay, replay_one, why_not_run
from holdfast.testing.incidents.scenario import Expectation, Incident, ScenarioError, Step
from holdfast.testing.incidents.world import Rig, World
from tests.incidents.scenarios import FURTHER, INCIDENTS

BY_ID = {incident.id: incident for incident in [*INCIDENTS, *FURTHER]}
SOON_S = 4.0
"""For the mutated run alone: the same scenario has passed with the usual patience a moment before."""
Change = Callable[[Expectation], Expectation]


class Around:
    """A store that does everything as the real one but for what a subclass gets wrong."""

    def __init__(self, store: Store) -> None:
        self.real = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class EveryVerdictUnchanged(Around):
    """The fence finds a takeover, and this says that nothing was found."""

    async def inspect(self, owned: Any) -> Verdict:
        try:
            return await self.real.inspect(owned)
        except SessionTakeoverError:
            owned.lost = None
            return Verdict("unchanged", "")

    async def append(self, owned: Any, lines: Any, *, sync: bool) -> tuple[Verdict, None]:
        try:
            verdict, _ = await self.real.append(owned, lines, sync=sync)
        except SessionTakeoverError:
            owned.lost = None
            return Verdict("unchanged", ""), None
        return verdict, None


class DropsDeliveries(Around):
    async def open_deliveries(self, channels: list[str]) -> list[Any]:
        return []


class KnowsNoDuplicates(Around):
    async def accept(self, event: InboundEvent, *usual: Any, **how: Any) -> Any:
        return await self.real.accept(replace(event, key=None), *usual, **how)


class LosesSalvage(Around):
    async def settle_salvaged(self, *args: Any) -> None:
        return None


class LosesMetadata(Around):
    async def append_metadata(self, *args: Any, **more: Any) -> None:
        return None


class IgnoresCancels(Around):
    async def request_cancel(self, *args: Any) -> str:
        return "already answered"


class TellsNobodyOfFailures(Around):
    """The explanation of a stop or a failure is left out."""

    async def settle(self, owned: Any, outcome: Any, *rest: Any) -> Any:
        if outcome is not None:
            outcome = replace(outcome, notice=None)
        return await self.real.settle(owned, outcome, *rest)


class ForgetsTheAnswer(Around):
    """The first settlement is lost: the turn is put back in line although it has answered."""

    forgot = False

    async def settle(self, owned: Any, outcome: Any, *rest: Any) -> Any:
        if outcome is not None and not self.forgot:
            self.forgot = True
            outcome = replace(outcome, answer="something else")
        return await self.real.settle(owned, outcome, *rest)


class BringsEndsElsewhere(Around):
    """The end of a sub-agent becomes an input of another session than its parent's."""

    async def accept(self, event: InboundEvent, *usual: Any, **how: Any) -> Any:
        if event.source == END:
            event = replace(event, session="agent:main:elsewhere")
        return await self.real.accept(event, *usual, **how)


PRODUCT: dict[type[Around], str] = {
    EveryVerdictUnchanged: "OC-90729-X",
    DropsDeliveries: "OC-86572",
    KnowsNoDuplicates: "OC-14431",
    LosesSalvage: "OC-89039",
    LosesMetadata: "OC-84583",
    IgnoresCancels: "AG-7100",
    TellsNobodyOfFailures: "OC-112304",
    ForgetsTheAnswer: "OC-86572",
    BringsEndsElsewhere: "OC-38300",
}


async def nothing(world: World, args: dict[str, Any]) -> None:
    """A verb that leaves the world as it is."""


async def anew(world: World, args: dict[str, Any]) -> None:
    """A message handed over again, but as if it were another one."""
    one = world.inputs[args["input"]]
    await verbs.accept(world, {"as": f"{one.name} again", "session": one.session, "lane": one.lane, "text": one.text})


RUNNER: dict[str, tuple[Rig, str]] = {
    "others do not replace the file": (Rig(verbs={"foreign_rewrite": nothing}), "OC-86966"),
    "others append nothing": (Rig(verbs={"foreign_append": nothing}), "OC-84583"),
    "nobody is stopped": (Rig(verbs={"abort": nothing}), "AG-7100"),
    "what is handed over again is another message": (Rig(verbs={"redeliver": anew}), "OC-14431"),
    "has and lacks are swapped": (
        Rig(facts={"transcript_has": facts.transcript_lacks, "transcript_lacks": facts.transcript_has}),
        "OC-107873",
    ),
    "outcomes are read as verdicts": (Rig(facts={"turn_outcome": facts.change_class}), "OC-86966"),
}

EXPECTATIONS: dict[str, Change] = {
    "one more": lambda one: _with(one, "count", lambda count: count + 1),
    "another text": lambda one: _with(one, "text", lambda _: "nobody said this"),
    "another outcome": lambda one: _with(one, "is", lambda word: {"completed": "cancelled"}.get(word, word)),
    "another verdict": lambda one: _with(one, "is", lambda word: {"none": "takeover"}.get(word, word)),
}  # fmt: skip


def _with(one: Expectation, name: str, change: Callable[[Any], Any]) -> Expectation:
    if name not in one.args or not isinstance(one.args[name], int | str):
        return one
    return Expectation(one.fact, {**one.args, name: change(one.args[name])})


@pytest.mark.parametrize("mutation", PRODUCT, ids=lambda mutation: mutation.__name__)
def test_a_product_that_is_wrong_is_found_out(mutation: type[Around]) -> None:
    incident = BY_ID[PRODUCT[mutation]]
    assert replay_one(incident).passed
    wrong = replay_one(incident, rig=Rig(store=lambda store: cast("Store", mutation(store)), patience_s=SOON_S))
    assert wrong.status == "failed", f"{mutation.__doc__}: nobody noticed"
    assert wrong.first_failed


@pytest.mark.parametrize("name", RUNNER)
def test_a_runner_that_is_wrong_is_found_out(name: str) -> None:
    rig, incident = RUNNER[name]
    assert _failed(lambda: replay_one(BY_ID[incident], rig=rig))


@pytest.mark.parametrize("name", EXPECTATIONS)
def test_a_fact_that_is_asked_wrongly_does_not_hold(name: str) -> None:
    incident = BY_ID["OC-86572"]
    asked = tuple(EXPECTATIONS[name](one) for one in incident.expected)
    assert asked != incident.expected
    assert _failed(lambda: replay_one(msgspec.structs.replace(incident, expected=asked)))


def _failed(run: Callable[[], Result]) -> bool:
    """Red: a fact that does not hold, or a scenario that is refused."""
    try:
        return run().status == "failed"
    except ScenarioError:
        return True


def write_file(path: Path, **changes: Any) -> Path:
    incident = {
        "id": "MY-1", "family": "mine",
        "steps": [{"verb": "accept", "args": {"session": "S", "lane": "chat", "text": "hi", "as": "m1"}}],
        "expected": [{"fact": "replies_delivered", "args": {"input": "m1", "count": 1}}],
    }  # fmt: skip
    path.write_text(json.dumps({"format": 1, "incidents": [{**incident, **changes}]}))
    return path


def test_a_scenario_of_ones_own_runs(tmp_path: Path) -> None:
    (result,) = replay(write_file(tmp_path / "mine.json"))
    assert (result.id, result.status, result.facts_checked) == ("MY-1", "passed", 1)
    assert json.loads(result.line())["passed"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": [{"verb": "dance", "args": {}}]},
        {"expected": [{"fact": "everybody_is_happy", "args": {}}]},
        {"expected": []},
        {"expected": [{"fact": "replies_delivered", "args": {"input": "m1", "count": 1, "txet": "hi"}}]},
        {"expected": [{"fact": "turn_outcome", "args": {"input": "m1", "is": "splendid"}}]},
        {"expected": [{"fact": "log_absent", "args": {"name": "no_such_record"}}]},
        {"expected": [{"fact": "replies_delivered", "args": {"input": "m1"}}]},
        {"expected": [{"fact": "replies_delivered", "args": {"input": "m9", "count": 0}}]},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_what_the_runner_does_not_understand_is_an_error_and_never_a_pass(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ScenarioError):
        list(replay(write_file(tmp_path / "mine.json", **changes)))


def test_every_verb_and_fact_either_runs_or_waits_for_a_named_feature() -> None:
    assert set(verbs.TABLE) | set(words.WAITING_FOR_VERB) == set(words.VERBS)
    assert set(facts.TABLE) | set(words.WAITING_FOR_FACT) == set(words.FACTS)
    assert not set(facts.TABLE) & set(words.WAITING_FOR_FACT)
    assert not set(verbs.TABLE) & set(words.WAITING_FOR_VERB)


def test_the_page_has_the_table_of_words() -> None:
    page = Path(__file__).parents[2] / "docs" / "incidents.md"
    assert words.word_table() in page.read_text(encoding="utf-8")


def test_an_incident_that_cannot_happen_here_says_why() -> None:
    result = replay_one(BY_ID["OC-113446"])
    assert (result.status, result.passed) == ("not_applicable", False)
    assert result.reason


def test_what_cannot_happen_to_rows_is_not_applicable_there_and_never_passed() -> None:
    refused = {one.id: why_not_run(one, on_rows=True) for one in [*INCIDENTS, *FURTHER]}
    only_there = {name: why for name, why in refused.items() if why is not None and why_not_run(BY_ID[name]) is None}
    assert {why[0] for why in only_there.values()} == {"not_applicable"}
    assert len(only_there) < len(refused) / 4, "most of what happened has nothing to do with files"
    touched = Incident("x", "own", (Step("metadata_touch", {"session": "S", "kind": "mtime"}),), ())
    assert why_not_run(touched, on_rows=True) == ("not_applicable", words.NO_ATTRIBUTES)
    assert why_not_run(touched) is None
