"""The incidents of the field, and those which this release does not live up to."""

from __future__ import annotations

from pathlib import Path

from holdfast.testing.incidents import words
from holdfast.testing.incidents.runner import Status
from holdfast.testing.incidents.scenario import Incident, load_incidents

FILE = Path(__file__).with_name("incidents.json")
INCIDENTS = load_incidents(FILE)

KNOWN_TO_FAIL = {
    "OC-110980": "a second gateway waits for the live owner; it does not displace it, so nobody is told to send again",
}
"""Each is a finding to decide or to mend; a test that passes nevertheless fails, so that the list cannot go stale."""


def why_not_run(incident: Incident) -> tuple[Status, str] | None:
    """("waiting", the feature) or ("not_applicable", the reason), None if it runs."""
    steps = [(step.verb, step.args) for step in incident.all_steps]
    reason = words.why_not_applicable(steps)
    if reason is not None:
        return "not_applicable", reason
    feature = words.missing_feature(steps, [(one.fact, one.args) for one in incident.expected])
    return None if feature is None else ("waiting", feature)
