"""Heartbeats and cron jobs of a configuration, as the timers take them; and what to be warned of. Pure."""

from __future__ import annotations

from pathlib import Path

from holdfast.config.agents import HeartbeatConfig
from holdfast.config.model import Config
from holdfast.inbound import cron, heartbeat
from holdfast.inbound.beating import HeartbeatSettings
from holdfast.inbound.cron import JobDefinition
from holdfast.session.key import DEFAULT_AGENT, parse_key


def jobs_of(config: Config) -> list[JobDefinition]:
    """The cron jobs, by name."""
    return [job.definition(name) for name, job in sorted(config.cron.jobs.items())]


def agents_with_heartbeat(config: Config) -> list[str]:
    """Agents with a table `heartbeat` of their own; if none has one, the default agent."""
    named = sorted(name for name, agent in config.agents.items() if agent.heartbeat is not None)
    return named or [DEFAULT_AGENT]


def heartbeats_of(config: Config, state: Path) -> list[HeartbeatSettings]:
    """The heartbeats that are on.

    Args:
        state: the state directory, in which HEARTBEAT.md is looked for where no other place is named.
    """
    found: list[HeartbeatSettings] = []
    for agent in agents_with_heartbeat(config):
        own = config.agents[agent].heartbeat if agent in config.agents else None
        merged = _merged(config.heartbeat, own)
        every_ms = heartbeat.interval_ms(merged.every)
        if every_ms is not None:
            found.append(_settings(agent, every_ms, merged, state))
    return found


def _merged(general: HeartbeatConfig, own: HeartbeatConfig | None) -> HeartbeatConfig:
    facts = {} if own is None else {name: value for name, value in own if value is not None}
    return general.model_copy(update=facts)


def _settings(agent: str, every_ms: int, one: HeartbeatConfig, state: Path) -> HeartbeatSettings:
    return HeartbeatSettings(
        agent=agent,
        every_ms=every_ms,
        session=one.session or cron.main_session(agent),
        file=one.file or str(state / "agents" / agent / "HEARTBEAT.md"),
        isolated=one.isolated is not False,
        target=one.target or "none",
        block_direct=one.direct_policy == "block",
        start=one.active_start,
        end=one.active_end,
        timezone=one.timezone or "user",
        user_timezone=one.user_timezone or "UTC",
        ack_chars_max=heartbeat.ACK_CHARS_MAX if one.ack_chars_max is None else one.ack_chars_max,
        show_ok=bool(one.show_ok),
        show_alerts=one.show_alerts is not False,
        skip_when_busy=bool(one.skip_when_busy),
        model=one.model,
        limit_s=one.timeout_s,
    )


def check_timers(config: Config) -> tuple[list[str], list[str]]:
    """Faults and warnings of heartbeats and jobs, each with its key's path."""
    faults: list[str] = []
    warnings: list[str] = []
    for job in jobs_of(config):
        faults += [f"cron.jobs.{job.name}.{fault}" for fault in cron.check(job)]
    for one in heartbeats_of(config, Path()):
        where = f"agents.{one.agent}.heartbeat" if config.agents.get(one.agent) and config.agents[
            one.agent].heartbeat else "heartbeat"  # fmt: skip
        if one.every_ms < heartbeat.MIN_SPACING_MS:
            faults.append(f"{where}.every: heartbeats are at least 30 s apart")
        if parse_key(one.session).kind == "subagent":
            faults.append(
                f"{where}.session: {one.session} is a sub-agent's, which has no heartbeat; name a conversation"
            )
        if not one.isolated:
            warnings.append(
                f"{where}.isolated: false: each heartbeat takes the conversation {one.session} for its whole turn. A "
                "message that comes meanwhile waits for its next step, other programs' writes can cost it its answer, "
                "and what it looks at fills the conversation's context; leave it unset unless you need the old way"
            )
        if (one.start is None) != (one.end is None):
            faults.append(f"{where}.active_start: active hours need a start and an end")
        elif one.start is not None and one.start == one.end:
            warnings.append(f"{where}.active_end: the same as active_start: the heartbeat never runs")
        if not one.show_ok and not one.show_alerts:
            warnings.append(f"{where}.show_alerts: nothing of a heartbeat would be shown, so none is run")
    return faults, warnings
