"""What OpenClaw's lock files need in tests: a process that passes for OpenClaw, and lock files left behind.

    async with holdfast.open(state, lock_protocol="openclaw", processes=taken_for_openclaw) as hf: ...

A test runner's command line does not name openclaw, so `holdfast.open` would refuse.
"""

from __future__ import annotations

import os
from dataclasses import replace

from holdfast.session.lock_file import ProcessFacts
from holdfast.store.embedded.openclaw_lock import facts_of


def taken_for_openclaw(pid: int) -> ProcessFacts:
    """The facts as they are, except that this very process was started with the argument `openclaw`."""
    facts = facts_of(pid)
    if pid != os.getpid():
        return facts
    return replace(facts, arguments=(*(facts.arguments or ("python",)), "openclaw"))
