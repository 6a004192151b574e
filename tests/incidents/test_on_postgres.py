"""The incidents of the field on a state in PostgreSQL: a few in `make test`, chosen for what is done otherwise there
(claims, takeover, edits of rows, outbox, recovery), all in `make test-all`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast.testing.incidents.rows import Databases
from holdfast.testing.incidents.runner import replay_one, why_not_run
from holdfast.testing.incidents.scenario import Incident
from holdfast.testing.incidents.world import Rig
from tests.conformance import postgres_server
from tests.incidents.scenarios import FURTHER, INCIDENTS, KNOWN_TO_FAIL
from tests.incidents.test_incidents import SOON_S

IN_CI = {
    "OC-86572",  # own writes beside a turn are no takeover
    "OC-86966",  # rows are replaced by SQL while a model streams: the answer is kept, and delivered once
    "OC-90729-X",  # a foreign line is inserted: the answer is kept
    "OC-89039",  # a delivery after a takeover
    "OC-112975",  # a sub-agent's turn is taken over, and its parent hears of it
}


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    with postgres_server.running() as url:
        made = Databases(url)
        yield made
        made.close()


def marked(incident: Incident) -> object:
    known = KNOWN_TO_FAIL.get(incident.id)
    marks = [] if known is None else [pytest.mark.xfail(strict=True, reason=known)]
    if incident.id not in IN_CI:
        marks.append(pytest.mark.long)
    return pytest.param(incident, id=incident.id, marks=marks)


RUN = [one for one in [*INCIDENTS, *FURTHER] if why_not_run(one, on_rows=True) is None]


@pytest.mark.parametrize("incident", [marked(one) for one in RUN])
def test_it_does_not_happen_on_postgresql(incident: Incident, databases: Databases) -> None:
    rig = Rig(patience_s=SOON_S) if incident.id in KNOWN_TO_FAIL else Rig()
    result = replay_one(incident, databases=databases, rig=rig)
    assert result.status == "passed", f"{result.first_failed}: {result.seen}"
    assert result.facts_checked >= len(incident.expected)


def test_those_in_ci_are_run() -> None:
    assert {one.id for one in RUN} >= IN_CI
