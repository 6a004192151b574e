"""Orders of a gateway in a scenario that are about timers: make one due, see its runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from holdfast.clock import epoch_ms
from holdfast.inbound import beating, cron
from holdfast.inbound.announcement import announced_by, is_announcement
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.cron import JobDefinition
from holdfast.inbound.timer import Timer
from holdfast.kernel import Holdfast

HALF_AN_HOUR_MS = 1_800_000
ROWS_MAX = 10_000


class TimerOrders:
    """What `node.Node` understands besides its own orders."""

    @property
    def _hf(self) -> Holdfast:
        raise AssertionError("a node has a handle")

    async def make_job_due(self, job: str, session: str, to: str, timeout_s: int) -> int:
        """A cron job of this name is due now; the time it is due, which names its run."""
        definition = JobDefinition(job, f"job {job}", every="1000d", target=f"session:{session}", to=to,
                                   timeout_s=timeout_s)  # fmt: skip
        return await self._make_due(cron.new_timer(definition, "cli", self._now_ms()))

    async def make_heartbeat_due(self, session: str, to: str, isolated: bool, model: str | None) -> int:
        """The heartbeat of the agent, for this session, is due now."""
        settings = HeartbeatSettings("main", HALF_AN_HOUR_MS, session, isolated=isolated, target=to, model=model)
        return await self._make_due(beating.new_timer(settings, "scenario", self._now_ms()))

    async def _make_due(self, timer: Timer) -> int:
        known = {one.id: one for one in await self._hf.store.timers()}
        seen = known.get(timer.id)
        kept = seen if seen is not None else timer
        at_ms = self._now_ms()
        await self._hf.store.change_timer(
            seen, replace(kept, spec=timer.spec, source="cli", next_at_ms=at_ms, not_before_ms=0, memo={})
        )
        return at_ms

    def _now_ms(self) -> int:
        return epoch_ms(self._hf.clock.now())

    async def timer_runs(self, timer: str | None) -> list[dict[str, Any]]:
        """Runs and skips of a timer, or of all, oldest first."""
        return [asdict(one) for one in await self._hf.store.timer_runs(timer=timer, limit=ROWS_MAX)][::-1]

    async def announcements(self) -> dict[str, str]:
        """Announcements, and the inputs whose results they are: what is sent for the one is the answer of the other."""
        inputs = [one for one in await self._hf.inputs(limit=ROWS_MAX) if is_announcement(one)]
        return {one.id: str((announced_by(one.payload) or {}).get("of")) for one in inputs}
