"""The words of scenarios and what they mean here: the one table, also shown in `docs/incidents.md`.

Everything is data. What has no feature behind it yet is in `WAITING_FOR…`; those entries go as features come.
"""

from __future__ import annotations

from typing import Any

VERBS = frozenset(
    [
        "configure",
        "process_start",
        "accept",
        "inbound_raw",
        "ack_inbound",
        "redeliver",
        "start_turn",
        "model_stream_begin",
        "model_stream_chunk",
        "model_stream_stall",
        "model_stream_end",
        "tool_begin",
        "tool_progress",
        "tool_end",
        "owned_append",
        "owned_rewrite",
        "foreign_append",
        "foreign_rewrite",
        "metadata_append",
        "metadata_touch",
        "read_only_access",
        "lock_hold",
        "lock_leave",
        "store_write",
        "corrupt",
        "provider_error",
        "io_error",
        "heartbeat_tick",
        "cron_fire",
        "webhook_fire",
        "child_run_done",
        "compaction",
        "deliver_begin",
        "deliver_ok",
        "deliver_fail",
        "deliver_unknown",
        "abort",
        "reset_session",
        "switch_model",
        "kill",
        "restart",
        "stop_graceful",
        "block_loop",
        "watchdog_scan",
        "advance_clock",
        "repair_command",
        "await_idle",
    ]
)

FACTS = frozenset(
    [
        "replies_delivered",
        "no_silent_loss",
        "input_state",
        "input_runs",
        "transcript_has",
        "transcript_lacks",
        "transcript_valid",
        "replay_valid",
        "branch_reaches",
        "turn_outcome",
        "change_class",
        "error_class",
        "fallback_attempts",
        "provider_calls",
        "model_used",
        "model_pin",
        "auth_cooldown",
        "recovery_actions",
        "lane_free",
        "lock_free",
        "lock_owner_named",
        "owner_count",
        "second_owner_refused",
        "user_notice",
        "log_event",
        "log_absent",
        "exit_code",
        "process_alive",
        "delivery_state",
        "queue_depth",
        "elapsed",
        "file_kept",
        "index_matches",
        "job_runs",
        "session_key",
        "cpu_idle",
    ]
)

# ── scenario word → words of the product ─────────────────────────────────────────────────────────────────────────────

TURN_OUTCOMES: dict[str, tuple[str, ...]] = {
    "completed": ("answered", "done"),
    "taken_over": ("taken_over",),
    "superseded": ("taken_over",),
    "cancelled": ("cancelled",),
    "interrupted": ("interrupted", "died"),
}
"""`turn_outcome`: outcomes of a turn in the ledger (`holdfast turns`)."""

INPUT_STATES: dict[str, tuple[str, ...]] = {
    "answered": ("answered", "steered", "merged"),
    "coalesced": ("steered", "merged", "skipped"),
    "cancelled": ("cancelled",),
    "queued": ("queued",),
    "failed": ("failed",),
}
"""`input_state`: states of an input (`docs/states.md`). Steered and merged inputs share their turn's fate."""

CHANGE_CLASSES: dict[str, tuple[str, ...]] = {
    "none": ("unchanged", "advanced"),
    "benign": ("unchanged", "advanced", "adopted"),
    "takeover": ("superseded", "foreign_turn", "tampered"),
}
"""`change_class`: verdicts of the fence. A mirror of our own counts as `advanced`, so `none` and `benign` overlap."""

DELIVERY_STATES: dict[str, tuple[str, ...]] = {
    "delivered": ("sent",),
    "unknown_reported": ("unknown",),
    "failed": ("failed",),
}
"""`delivery_state`: states of an outbox row (`holdfast outbox`)."""

LOG_RECORDS: dict[str, str] = {
    "turn_taken_over": r"\[diagnostic\] lane task error: .*SessionTakeoverError",
    "all_models_failed": r"All models failed",
    "candidate_failed": r"\[model-fallback/decision\] decision=candidate_failed",
    "lock_timeout": r"SessionWriteLockTimeoutError",
    "turn_superseded": r"\[diagnostic\] lane task error: .*superseded",
    "stalled_session": r"session\.(stalled|stuck)",
    "delivery_failed": r"^delivery .*(refused it|failed|gave up)",
    "duplicate_input_ignored": r"^input \S+: handed over again",
    "torn_tail": r"torn|partial|half line|incomplete last line",
}
"""`log_event`, `log_absent`: what the record looks like in the log of a process."""

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "turn_outcome": TURN_OUTCOMES,
    "input_state": INPUT_STATES,
    "change_class": CHANGE_CLASSES,
    "delivery_state": DELIVERY_STATES,
}


def word_table() -> str:
    """The table of `docs/incidents.md`."""
    rows = [
        f"| `{fact}` | `{word}` | {', '.join(f'`{one}`' for one in ours)} |"
        for fact, table in WORDS.items()
        for word, ours in table.items()
    ]
    return "\n".join(["| fact | scenario | Holdfast |", "|---|---|---|", *rows])


# ── what is still to come ────────────────────────────────────────────────────────────────────────────────────────────

WAITING_FOR_VERB: dict[str, str] = {
    "heartbeat_tick": "heartbeat",
    "cron_fire": "cron",
    "webhook_fire": "webhooks",
    "compaction": "compaction",
    "child_run_done": "child runs",
    "reset_session": "session reset",
    "switch_model": "model pins",
    "watchdog_scan": "stuck-session watchdog",
    "repair_command": "repair commands",
    "store_write": "session index",
    "tool_progress": "stuck-session watchdog",
    "block_loop": "scripted stops of the event loop",
}

WAITING_FOR_FACT: dict[str, str] = {
    "model_pin": "model pins",
    "auth_cooldown": "cool-downs",
    "lock_owner_named": "a holder's story after its end",
    "job_runs": "cron",
    "session_key": "heartbeat",
    "cpu_idle": "measuring waits",
    "second_owner_refused": "a second gateway's refusal",
}

WAITING_FOR_CONFIGURE: dict[str, str] = {
    "queue_mode": "queue modes",
    "reload": "reloading the configuration",
    "guard_swapped_during_turn": "stuck-session watchdog",
    "tool_limit_s": "stuck-session watchdog",
    "stale_writer_claim": "child runs",
    "heartbeat_model": "heartbeat",
    "heartbeat_isolated": "heartbeat",
    "cron_concurrency": "cron",
    "job_limit_s": "cron",
    "state": "repair commands",
    "index_entries": "session index",
    "plugin_writes": "child runs",
}
CONFIGURE = frozenset({"models", "link", "target", "queue_cap", "queue_mode", "session"})

WAITING_FOR_LOG: dict[str, str] = {
    "stale_lock_reclaimed": 'the lock files of `lock_protocol = "openclaw"`',
    "lock_release_failed": 'the lock files of `lock_protocol = "openclaw"`',
    "stale_owner_cleared": "a log record of a cleared owner",
    "index_rebuilt": "session index",
    "index_lock_timeout": "session index",
    "replay_repaired": "repair of refused histories",
    "waiting_for_session_lock": "a log record of a turn's wait",
    "coordination_seen_during_provider_failure": "heartbeat",
    "maintenance_deferred": "compaction",
    "heartbeat_deferred": "heartbeat",
    "recovery_verified": "stuck-session watchdog",
    "recovery_abort": "stuck-session watchdog",
    "aborted_by_user": "stuck-session watchdog",
    "late_write_rejected": "compaction",
    "session_rebound": "child runs",
    "announce_downgraded": "child runs",
    "spool_write_failed": "inbound channels",
    "possible_duplicate": "cron",
    "job_skipped_silently": "cron",
    "scheduler_alive": "cron",
    "lane_wait_exceeded": "cron",
    "lane_timeout": "cron",
    "destination_changed": "repair commands",
}

REFUSED_HISTORIES = ("Invalid signature", "tool_use_id")
"""What a provider says when it does not take the history; asking another model, or again, would not help."""

LOCK_HOLD_MAX_S = 60.0
"""Waits for the write lock are measured on real time, so nobody here holds one for hours."""

NOT_APPLICABLE: dict[tuple[str, str, str], str] = {
    ("metadata_touch", "kind", "inode"): "an inode that changes under the same bytes is a network share's; "
    "those are refused at opening",
}
"""A verb with this argument describes what cannot happen to this backend."""


def missing_feature(steps: list[tuple[str, dict[str, Any]]], facts: list[tuple[str, dict[str, Any]]]) -> str | None:
    """The first feature that a scenario needs and that does not exist yet."""
    for verb, args in steps:
        if verb in WAITING_FOR_VERB:
            return WAITING_FOR_VERB[verb]
        if verb == "configure":
            for key, value in args.items():
                if (key, value) == ("queue_mode", "followup"):
                    continue  # the only mode there is
                if key in WAITING_FOR_CONFIGURE:
                    return WAITING_FOR_CONFIGURE[key]
        if verb == "provider_error" and any(word in args.get("body", "") for word in REFUSED_HISTORIES):
            return "repair of refused histories"
        if verb == "lock_hold" and float(args.get("seconds", 0)) > LOCK_HOLD_MAX_S:
            return "write locks held for hours"
        if verb == "io_error" and args.get("op") == "offset_write":
            return "inbound channels"
        if args.get("part") == "tool_message":
            return "messages sent by tools"
        if args.get("ghost") or args.get("shares_id_with") or args.get("approval") or args.get("keep_memory_slot"):
            return "stuck-session watchdog"
    for fact, args in facts:
        if fact in WAITING_FOR_FACT:
            return WAITING_FOR_FACT[fact]
        if fact in ("log_event", "log_absent") and args.get("name") in WAITING_FOR_LOG:
            return WAITING_FOR_LOG[args["name"]]
        if args.get("is") == "silent":
            return "silent replies"
        if args.get("is") == "replay_rejected":
            return "repair of refused histories"
    return None


def why_not_applicable(steps: list[tuple[str, dict[str, Any]]]) -> str | None:
    """Why a scenario cannot happen here at all."""
    for verb, args in steps:
        for (of_verb, name, value), reason in NOT_APPLICABLE.items():
            if verb == of_verb and args.get(name) == value:
                return reason
    return None
