"""Each incident of the field that needs only what exists, against the real code; one test per scenario."""

from __future__ import annotations

import pytest

from holdfast.testing.incidents.runner import replay_one, why_not_run
from holdfast.testing.incidents.scenario import Incident
from holdfast.testing.incidents.world import Rig
from tests.incidents.scenarios import FURTHER, INCIDENTS, KNOWN_TO_FAIL, LONG

SOON_S = 4.0
"""Nobody waits ten seconds for what is known not to come."""


def marked(incident: Incident) -> object:
    """A parameter; one that is known to fail must fail."""
    known = KNOWN_TO_FAIL.get(incident.id)
    marks = [] if known is None else [pytest.mark.xfail(strict=True, reason=known)]
    if incident.id in LONG:
        marks.append(pytest.mark.long)
    return pytest.param(incident, id=incident.id, marks=marks)


@pytest.mark.parametrize("incident", [marked(one) for one in [*INCIDENTS, *FURTHER] if why_not_run(one) is None])
def test_it_does_not_happen_here(incident: Incident) -> None:
    rig = Rig(patience_s=SOON_S) if incident.id in KNOWN_TO_FAIL else Rig()
    result = replay_one(incident, rig=rig)
    assert result.status == "passed", f"{result.first_failed}: {result.seen}"
    assert result.facts_checked >= len(incident.expected)


def test_every_waiting_incident_names_the_feature_it_waits_for() -> None:
    both = [*INCIDENTS, *FURTHER]
    waiting = {incident.id: why_not_run(incident) for incident in both if why_not_run(incident) is not None}
    assert all(why is not None and why[1].strip() for why in waiting.values())
    assert (len(INCIDENTS), len(FURTHER)) == (141, 29)
    assert len({incident.id for incident in both}) == len(both)
    assert set(KNOWN_TO_FAIL) <= {incident.id for incident in both} - set(waiting)
