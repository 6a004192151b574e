"""The words of scenarios and what they mean here: the one table, also shown in `docs/incidents.md`.

Everything is data. What has no feature behind it yet is in `WAITING_FOR…`; those entries go as features come.
"""

from __future__ import annotations

from typing import Any

VERBS: dict[str, str] = {
    "abort": "by input keep_memory_slot session turn when",
    "accept": "as at by lane repeat session text when",
    "ack_inbound": "input",
    "advance_clock": "seconds",
    "await_idle": "session",
    "block_loop": "process seconds when",
    "child_run_done": "child outcome parent text",
    "compaction": "at by phase session trigger",
    "configure": (
        "cron_concurrency duration_s guard_swapped_during_turn heartbeat_isolated heartbeat_model "
        "index_entries job_limit_s link models plugin_writes queue_cap queue_mode reload session "
        "stale_writer_claim state target tool_limit_s"
    ),
    "corrupt": "file how session",
    "cron_fire": "as by job repeat session",
    "deliver_begin": "turn",
    "deliver_fail": "reason status turn",
    "deliver_ok": "part target turn",
    "deliver_unknown": "turn",
    "foreign_append": "by kind session",
    "foreign_rewrite": "by kind session",
    "heartbeat_tick": "as reason session when",
    "inbound_raw": "as lane session text update",
    "io_error": "bytes_written duration_s errno op session",
    "kill": "process signal sweep when",
    "lock_hold": "by declared_limit_s payload_delay_s seconds session",
    "lock_leave": "pid removable session started",
    "metadata_append": "by kind parent session",
    "metadata_touch": "kind session",
    "model_stream_begin": "model turn",
    "model_stream_chunk": "id kind raw_newline repeat signature turn",
    "model_stream_end": "id kind text turn",
    "model_stream_stall": "seconds turn",
    "owned_append": "kind pause_ms pieces turn when",
    "owned_rewrite": "kind turn",
    "process_start": "home kind name",
    "provider_error": "body model status turn",
    "read_only_access": "by op session when",
    "redeliver": "if input",
    "repair_command": "as by name session uses",
    "reset_session": "session",
    "restart": "channel_ready_after_s process",
    "start_turn": "as ghost input lane process session shares_id_with",
    "stop_graceful": "drain_s process",
    "store_write": "by op session",
    "switch_model": "by session to",
    "tool_begin": "approval id turn",
    "tool_end": "id ok recorded turn",
    "tool_progress": "id turn",
    "watchdog_scan": "",
    "webhook_fire": "as hook repeat session",
}
"""Every verb, and the arguments it may have."""

FACTS: dict[str, str] = {
    "auth_cooldown": "is provider",
    "branch_reaches": "from session to",
    "change_class": "is not one_of turn",
    "cpu_idle": "",
    "delivery_state": "input is not one_of",
    "elapsed": "event max_s",
    "error_class": "attempt input is reader turn",
    "exit_code": "is process reflects",
    "fallback_attempts": "count max min turn",
    "file_kept": "home session what",
    "index_matches": "session transcript",
    "input_runs": "count input max min",
    "input_state": "input is not one_of",
    "job_runs": "count job",
    "lane_free": "session within_s",
    "lock_free": "session within_s",
    "lock_owner_named": "fields session",
    "log_absent": "name turn",
    "log_event": "count count_min input name outcome reason run session turn",
    "model_pin": "is session source",
    "model_used": "is turn",
    "no_silent_loss": "session",
    "owner_count": "count file max min session",
    "process_alive": "process",
    "provider_calls": "count input max min turn",
    "queue_depth": "is queue session",
    "recovery_actions": "count max session",
    "replay_valid": "session",
    "replies_delivered": "count input max min part session text",
    "second_owner_refused": "by process what",
    "session_key": "input is",
    "transcript_has": "count max min session what where",
    "transcript_lacks": "session what",
    "transcript_valid": "session",
    "turn_outcome": "input is not one_of turn",
    "user_notice": "absent fields input mentions process session",
}
"""Every fact, and the arguments it may have."""

# ── scenario word → words of the product ─────────────────────────────────────────────────────────────────────────────

TURN_OUTCOMES: dict[str, tuple[str, ...]] = {
    "completed": ("answered", "done"),
    "taken_over": ("taken_over",),
    "superseded": ("taken_over", "cancelled"),
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
    "silent": ("silent",),
}
"""`delivery_state`: states of an outbox row (`holdfast outbox`); `silent`: there is none, and the input says so."""

LOG_RECORDS: dict[str, str] = {
    "turn_taken_over": r"\[diagnostic\] lane task error: .*SessionTakeoverError",
    "all_models_failed": r"All models failed",
    "candidate_failed": r"\[model-fallback/decision\] decision=candidate_failed",
    "lock_timeout": r"SessionWriteLockTimeoutError",
    "turn_superseded": r"\[diagnostic\] lane task error: .*superseded",
    "stalled_session": r"session\.(stalled|stuck)",
    "delivery_failed": r"^delivery .*(refused it|failed|gave up)",
    "duplicate_input_ignored": r"^input \S+: handed over again",
    "heartbeat_deferred": r"^heartbeat deferred",
    "scheduler_alive": r"^timers at work|^timer \S+ fired",
    "lane_wait_exceeded": r"^timer \S+ skipped: lane-full",
    "lane_timeout": r"\[diagnostic\] lane task error: .*[Tt]imed? ?out",
    "job_skipped_silently": r"^timer \S+ skipped: *$",
    "replay_repaired": r"\[model-fallback/decision\] decision=history_mended",
    "torn_tail": r"torn|partial|half line|incomplete last line",
    "waiting_for_session_lock": r"^write lock of .*: not free after \d+ ms, held by pid=\d+",
    "coordination_seen_during_provider_failure": r"\[model-fallback/coordination\] .*meanwhile=\S",
    "stale_owner_cleared": r"^transcript .*: its stale owner was cleared: turn \S+ of session \S+, process",
    "possible_duplicate": r"^delivery .*: a labelled copy is sent \(input \S+\)",
    "session_rebound": r"was bound to another transcript meanwhile",
    "announce_downgraded": r"^child \S+ of .*: stopped with its parent's work, not announced",
    "stale_lock_reclaimed": r"^lock file .*: stale lock reclaimed",
    "lock_release_failed": r"^lock file .* could not be removed",
    "maintenance_deferred": r"^compaction \S+ of session \S+ deferred: it waits for \d+ before it",
    "late_write_rejected": r"^compaction of session \S+ in turn \S+ came to nothing, no summary was written",
    "index_rebuilt": r"the sessions were listed again from their transcripts",
    "index_lock_timeout": r"ledger .* locked \(timeout",
    "destination_changed": r"(^|; )(ineffective|not_needed): ",
    "recovery_verified": r"^session\.recovery\.completed outcome=effective ",
    "recovery_abort": r"^session\.recovery\.requested .*reason=ask_to_end",
    "spool_write_failed": r"^an input from .* could not be stored and was not acknowledged",
}
"""`log_event`, `log_absent`: what the record looks like in the log of a process."""

LOG_REASONS: dict[str, str] = {"start_time": "recycled-pid"}
"""`log_event`: the word with which a record gives that reason."""

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

WAITING_FOR_VERB: dict[str, str] = {}

WAITING_FOR_FACT: dict[str, str] = {
    "cpu_idle": "measuring waits",
}

WAITING_FOR_CONFIGURE: dict[str, str] = {
    "queue_mode": "queue modes",
}
CONFIGURE = frozenset(
    {
        "cron_concurrency",
        "guard_swapped_during_turn",
        "heartbeat_isolated",
        "heartbeat_model",
        "index_entries",
        "job_limit_s",
        "models",
        "plugin_writes",
        "stale_writer_claim",
        "link",
        "target",
        "queue_cap",
        "queue_mode",
        "reload",
        "duration_s",
        "session",
        "state",
        "tool_limit_s",
    }
)

WAITING_FOR_LOG: dict[str, str] = {}

LOCK_HOLD_MAX_S = 60.0
"""Waits for the write lock are measured on real time: who holds one for longer is a process that stands still."""


def holds_for_hours(verb: str, args: dict[str, Any]) -> bool:
    return verb == "lock_hold" and float(args.get("seconds", 0)) > LOCK_HOLD_MAX_S


NOT_APPLICABLE: dict[tuple[str, str, str], str] = {
    ("metadata_touch", "kind", "inode"): "an inode that changes under the same bytes is a network share's; "
    "those are refused at opening",
}
"""A verb with this argument describes what cannot happen to this backend."""


NO_ATTRIBUTES = "rows have no attributes that change beside their content"
NO_LOCK_FILE = "there is no lock beside a transaction: rows are locked by the statement that appends"
NO_DISK = "the disk is the server's: what that refuses is met as a database that is away, and tested as that"
NO_TORN_LINE = "a commit is there whole or not at all: no line can be torn"
NOT_ON_ROWS: dict[tuple[str, str | None, Any], str] = {
    ("metadata_touch", None, None): NO_ATTRIBUTES,
    ("lock_hold", None, None): NO_LOCK_FILE,
    ("lock_leave", None, None): NO_LOCK_FILE,
    ("corrupt", "file", "index"): "the list of sessions is a table, and no file that can be emptied",
    ("corrupt", "how", "last line cut"): NO_TORN_LINE,
    ("corrupt", "how", "cut inside a multi-byte character"): NO_TORN_LINE,
    ("io_error", "op", "append"): NO_DISK,
    ("io_error", "op", "spool_write"): NO_DISK,
    ("io_error", "op", "queue_remove"): NO_DISK,
    ("configure", "link", None): "rows have no links",
    ("configure", "guard_swapped_during_turn", None): "there is no fence record beside the rows",
    ("start_turn", "shares_id_with", None): "a transcript is known by its row, not by what its first line says",
    ("process_start", "home", None): "a state is the database that a URL names; there are no folders to mistake",
    ("kill", "when", "index written, transcript not"): (
        "transcript and ledger are one transaction: there is no moment between the two"),
}  # fmt: skip
"""On rows these cannot happen: a verb, one of its arguments and its value; None: any."""
FACTS_OF_FILES: dict[tuple[str, str, Any], str] = {
    ("second_owner_refused", "by", "directory_lease"): "many gateways on one database are what it is for",
    ("log_event", "name", "stale_lock_reclaimed"): NO_LOCK_FILE,
    ("log_event", "name", "lock_release_failed"): NO_LOCK_FILE,
    ("log_event", "name", "waiting_for_session_lock"): NO_LOCK_FILE,
}


def why_not_on_rows(steps: list[tuple[str, dict[str, Any]]], facts: list[tuple[str, dict[str, Any]]]) -> str | None:
    """Why a scenario cannot happen to a state in PostgreSQL, beside what cannot happen at all."""
    for asked, table in ((steps, NOT_ON_ROWS), (facts, FACTS_OF_FILES)):
        for word, args in asked:
            for (of_word, name, value), reason in table.items():
                fits = name is None or (name in args and (value is None or args[name] == value))
                if word == of_word and fits:
                    return reason
    return None


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
        stands = verb == "block_loop" and args.get("when") != "before last append"
        if stands and not any(holds_for_hours(*one) for one in steps):
            return "processes that stand still for hours"
    for fact, args in facts:
        if fact in WAITING_FOR_FACT:
            return WAITING_FOR_FACT[fact]
        if fact in ("log_event", "log_absent") and args.get("name") in WAITING_FOR_LOG:
            return WAITING_FOR_LOG[args["name"]]
    return None


def why_not_applicable(steps: list[tuple[str, dict[str, Any]]]) -> str | None:
    """Why a scenario cannot happen here at all."""
    for verb, args in steps:
        for (of_verb, name, value), reason in NOT_APPLICABLE.items():
            if verb == of_verb and args.get(name) == value:
                return reason
    return None
