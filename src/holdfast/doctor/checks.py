"""The table of checks. `docs/doctor.md` has it, too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.doctor import conversations, database, ground, place, repairs, work
from holdfast.doctor.facts import StateFacts
from holdfast.doctor.finding import Finding

if TYPE_CHECKING:
    from holdfast.kernel import Holdfast


@dataclass(frozen=True, slots=True)
class Check:
    """One invariant.

    Args:
        name: as in findings. about: what holds, in words.
        detect: what speaks against it.
        repair: does something about a finding that is `mendable` and says what; None: nothing can be done safely.
    """

    name: str
    about: str
    detect: Callable[[StateFacts], Iterable[Finding]]
    repair: Callable[[Holdfast, Finding], Awaitable[str]] | None = None


def _both(*detects: Callable[[StateFacts], Iterable[Finding]]) -> Callable[[StateFacts], Iterable[Finding]]:
    def detect(facts: StateFacts) -> Iterator[Finding]:
        for one in detects:
            yield from one(facts)

    return detect


CHECKS: tuple[Check, ...] = (
    Check("ledger", "the whole ledger can be read", ground.find_bad_ledger),
    Check(
        "claims", "each claim has a live holder, each running turn a claim",
        _both(work.find_dead_claims, work.find_stray_turns), repairs.close_dead,
    ),
    Check(
        "inputs", "each accepted input has ended, has an owner, or waits in a queue that somebody looks after",
        work.find_stranded_inputs, repairs.requeue,
    ),
    Check("held", "no work is held back", work.find_held_work),
    Check("queues", "the lengths of queues are right", work.find_wrong_counts, repairs.recount),
    Check(
        "deliveries", "each answer with a route has a delivery, and each delivery arrives",
        _both(work.find_lost_answers, work.find_stuck_deliveries),
    ),
    Check("pins", "each pin says who set it and why, and ends unless a user set it", work.find_bad_pins, repairs.unpin),
    Check("takeovers", "no turn lost its session to another writer within a week", work.find_takeovers),
    Check(
        "index", "the list of sessions and the transcripts on disk are the same",
        _both(conversations.find_unlisted, conversations.find_missing), repairs.list_again,
    ),
    Check(
        "transcripts", "each line can be read, ids are unique, parents exist",
        conversations.find_bad_lines, repairs.mend_lines,
    ),
    Check("pairs", "each tool call has its result", conversations.find_unpaired),
    Check(
        "archives", "each archive is whole, none is half done", conversations.find_bad_archives, repairs.end_archives
    ),
    Check(
        "rights", "folders are 0700, files 0600, all of them ours; a database's role has what it needs, others nothing",
        _both(ground.find_open_rights, database.find_wrong_roles), repairs.narrow,
    ),
    Check("links", "no link leads out of the state", ground.find_links),
    Check("clock", "nothing was written later than now", ground.find_wrong_clock),
    Check("disk", "there is room", ground.find_full_disk),
    Check("file system", "it keeps what the promises stand on", ground.find_bad_file_system),
    Check("database", "the tables are this release's, the server keeps what it commits", database.find_bad_database),
    Check("connections", "one more node finds room", database.find_few_connections),
    Check("tls", "a connection over a network is encrypted and knows its server", database.find_plain_connection),
    Check("config", "the configuration can be read, and its secrets are its owner's", place.find_bad_config),
    Check("port", "the gateway's address is free, or our own gateway is there", place.find_taken_port),
    Check("credentials", "each configured model has a key", place.find_missing_keys),
    Check("models", "each configured model answers (asked with --online)", place.find_silent_models),
)  # fmt: skip


def judge(facts: StateFacts) -> list[Finding]:
    """What all checks find, in the order of the table."""
    return [found for check in CHECKS for found in check.detect(facts)]


def check_of(found: Finding) -> Check:
    return next(check for check in CHECKS if check.name == found.check)
