"""The incidents of the field, and those which this release does not live up to."""

from __future__ import annotations

from pathlib import Path

from holdfast.testing.incidents.scenario import load_incidents

FILE = Path(__file__).with_name("incidents.json")
INCIDENTS = load_incidents(FILE)
FURTHER = load_incidents(FILE.with_name("further.json"))
"""Reports of other projects and later ones; written down before any of them was run, see docs/evidence/incidents.md."""

KNOWN_TO_FAIL = {
    "OC-110980": "a second gateway waits for the live owner; it does not displace it, so nobody is told to send again",
    "HA-47293": "a failed input stays failed (P2): the same key again is the same input, whose sender was told",
    "HA-72016": "a model that fails at once is asked up to 9 times within 90 s, which bounds a turn; not 8 in all",
    "OC-64606": "text has reached who watches the turn, so no other model is asked; the user is told that it broke off",
}
"""Each is a finding to decide or to mend; a test that passes nevertheless fails, so that the list cannot go stale."""

LONG = {"AS-1426", "HA-7536", "NB-4500", "OCD-21215"}
"""Further ones that start several processes: left out of `make test` for what they cost."""
