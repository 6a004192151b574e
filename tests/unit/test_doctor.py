"""The checks of `holdfast doctor` as plain functions: facts in, findings out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from holdfast.doctor import facts as told
from holdfast.doctor.checks import CHECKS, check_of, judge
from holdfast.doctor.checkup import Checkup, Mended, look
from holdfast.doctor.facts import DiskFacts, FileFact, LedgerFacts, PinFact, StateFacts
from holdfast.doctor.finding import Finding, that_stay

NOW_MS = 1_800_000_000_000
MIB = 1 << 20
WELL = StateFacts(
    "/state", NOW_MS,
    LedgerFacts(
        claims=(told.ClaimFact("t", ("agent:main:main",), "turn_1", "main", "p", 7, "alive", "running"),),
        inputs=(
            told.OpenInputFact("in_1", "agent:main:main", "running", "turn_1", True, True, NOW_MS - 5_000),
            told.OpenInputFact("in_2", "agent:main:main", "queued", None, False, True, NOW_MS - 1_000),
        ),
        unsent=(told.UnsentFact("in_0", "agent:main:main", "console:me", "NO_REPLY", None, NOW_MS),),
        deliveries=(told.DeliveryFact("d_1", "in_0", "console", "me", "started", 1, None, NOW_MS - 9_000, "alive"),),
        pins=(
            PinFact("p1", "a", "demo/x", "user", "chosen", NOW_MS, None, None, "me", False),
            PinFact("p2", "b", "demo/x", "auto", "timeout", NOW_MS, NOW_MS + 86_400_000, "demo/y", "turn_9", True),
        ),
        sessions=(told.SessionFact("agent:main:main", "t", "sessions/a/b.jsonl", True),),
        archives=(told.ArchiveFact("ar", "agent:main:main", "a/c.jsonl", "kept", 9, 9, False),),
        newest_ms=NOW_MS,
        gateways=1,
    ),
    (told.TranscriptFact("sessions/a/b.jsonl", 100, "agent:main:main", ("agent:main:main",), in_use=True),),
    (
        FileFact(".", "folder", 0o700, True), FileFact("token", "file", 0o600, True),
        FileFact("bells/p", "other", 0o600, True),
    ),
    DiskFacts("ext4", False, 10_000 * MIB, 100_000),
    living=1,
)  # fmt: skip


def found(facts: StateFacts) -> list[tuple[str, str]]:
    return [(one.check, one.level) for one in judge(facts)]


def with_pin(**changes: object) -> StateFacts:
    pin = replace(WELL.ledger.pins[1], **changes)
    return replace(WELL, ledger=replace(WELL.ledger, pins=(pin,)))


def test_a_state_that_is_well_and_busy_has_no_findings() -> None:
    assert judge(WELL) == []


@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        (DiskFacts("ext4", False, 63 * MIB, None), [("disk", "fault")]),
        (DiskFacts("ext4", False, 511 * MIB, None), [("disk", "remark")]),
        (DiskFacts("ext4", False, 512 * MIB, 999), [("disk", "fault")]),
        (DiskFacts("ext4", False, 512 * MIB, 1000), []),
        (DiskFacts("nfs4", True), [("file system", "fault")]),
        (DiskFacts("tmpfs"), [("file system", "remark")]),
        (DiskFacts("overlay"), [("file system", "remark")]),
        (DiskFacts(""), []),
    ],
)
def test_room_and_kind_of_the_disk(disk: DiskFacts, expected: list[tuple[str, str]]) -> None:
    assert found(replace(WELL, disk=disk)) == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "admin"}, "which nothing here writes"),
        ({"by": ""}, "does not say who"),
        ({"reason": ""}, "no reason"),
        ({"origin": None}, "which model it stands in for"),
        ({"is_by_turn": False}, "no turn that is known"),
        ({"expires_at_ms": None}, "never ends"),
        ({"expires_at_ms": NOW_MS + 86_400_001}, "more than 24 hours"),
    ],
)
def test_a_pin_that_is_not_what_it_should_be_says_what_is_missing(changes: dict[str, object], words: str) -> None:
    (one,) = judge(with_pin(**changes))
    assert (one.check, one.level, one.mendable, one.about) == ("pins", "fault", True, "p2")
    assert words in one.text


def test_what_waits_for_long_is_a_remark_only_where_nobody_works() -> None:
    late = replace(WELL.ledger.inputs[1], accepted_at_ms=NOW_MS - 700_000)
    ledger = replace(WELL.ledger, inputs=(late,))
    assert found(replace(WELL, ledger=ledger)) == []
    assert found(replace(WELL, ledger=replace(ledger, gateways=0))) == [("inputs", "remark")]
    held = replace(ledger, gateways=0, held_since_ms=1, held="three died")
    assert found(replace(WELL, ledger=held)) == [("held", "fault")]


def test_a_process_whose_life_cannot_be_told_is_never_closed() -> None:
    claim = replace(WELL.ledger.claims[0], life="unknown")
    (one,) = judge(replace(WELL, ledger=replace(WELL.ledger, claims=(claim,))))
    assert (one.check, one.level, one.mendable) == ("claims", "fault", False)
    assert "recover --wait" in one.way_out


def test_bad_lines_of_a_file_without_a_known_session_are_a_remark_since_no_turn_can_write_it_anew() -> None:
    bad = replace(WELL.transcripts[0], faults=("blank lines",))
    assert found(replace(WELL, transcripts=(bad,))) == [("transcripts", "fault")]
    unlisted, remarks = replace(bad, listed=()), [("index", "remark"), ("transcripts", "remark")]
    lost = replace(WELL, transcripts=(unlisted,), ledger=replace(WELL.ledger, sessions=()))
    assert found(lost) == [("index", "fault"), ("transcripts", "fault")]
    assert found(replace(lost, transcripts=(replace(unlisted, key=None),))) == remarks
    shares = replace(WELL.ledger.sessions[0], path="token")
    assert found(replace(lost, ledger=replace(WELL.ledger, sessions=(shares,)))) == remarks


def test_files_of_others_and_links_that_lead_out() -> None:
    files = (
        FileFact("token", "file", 0o644, False), FileFact("sessions/x", "link", 0o777, True, "/elsewhere"),
        FileFact("sessions/y", "link", 0o777, True), FileFact("fence/z", "other", 0o600, True),
    )  # fmt: skip
    assert found(replace(WELL, files=files)) == [("rights", "fault"), ("links", "fault"), ("links", "fault")]


def test_every_check_has_a_name_of_its_own_and_what_is_mendable_has_a_repair() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert {check.name for check in CHECKS if check.repair is not None} == {
        "claims", "inputs", "queues", "pins", "index", "transcripts", "archives", "rights",
    }  # fmt: skip
    assert check_of(Finding("pins", "x", "y")).name == "pins"


def test_a_second_look_is_taken_only_where_it_can_make_a_difference() -> None:
    dead = replace(WELL.ledger.claims[0], life="dead")
    ill = replace(WELL, ledger=replace(WELL.ledger, claims=(dead,)))
    looks: list[StateFacts] = []
    paused: list[float] = []

    def take(*states: StateFacts) -> list[str]:
        looks[:] = states
        paused.clear()
        _, findings = look(lambda: looks.pop(0), paused.append)
        assert looks == []
        return [one.check for one in findings]

    assert take(WELL) == []
    assert take(ill, WELL) == []  # recovery was just closing it
    assert take(ill, ill) == ["claims"]
    assert paused == [1.5]
    assert take(replace(ill, living=0)) == ["claims"]  # nobody is there who could
    assert take(replace(WELL, disk=DiskFacts("nfs", True))) == ["file system"]
    assert paused == []


def test_only_what_has_gone_counts_as_mended() -> None:
    a, b, c = (Finding("pins", name, "wrong", mendable=True) for name in "abc")
    result = Checkup((b,), (Mended(a, "done"), Mended(b, "done"), Mended(c, "", "it is in use")))
    assert [one.finding for one in result.helped] == [a]


def test_what_passes_counts_once_two_looks_have_it() -> None:
    passing, lasting = Finding("claims", "t", "x", passes=True), Finding("pins", "s", "y")
    assert that_stay([], [passing, lasting]) == [lasting]
    grown = replace(passing, text="x, still")
    assert that_stay([passing], [grown]) == [grown]
