"""Every error Holdfast raises, and what its catcher does.

    HoldfastError
    ├── CoordinationError            who may write; never counts as a model's failure
    │   ├── OwnershipLostError       the turn is gone; stop writing, do not retry
    │   │   └── SessionTakeoverError     the fence found somebody else; carries `.verdict`
    │   ├── SessionBusyError         somebody else's turn lasted longer than we wait; try again
    │   ├── SessionWriteLockTimeoutError   the write lock was not granted; nothing was written; try again
    │   ├── SessionWriteLockStaleError     another program's lock file is stale and in the way; remove it
    │   ├── SessionWriteLockLostError      another program took our lock file; nothing was written; try again
    │   ├── SessionMovedError        the session key names another transcript now; try again
    │   ├── WaitRingError            waiting would wait for itself; refused at once
    │   ├── TranscriptUnsettledError the end of the file is unclear; wait for the next turn to judge it
    │   └── DrainingError            the process is going away; send it elsewhere or later
    ├── ProviderError                the model's side; feeds failover
    │   └── AllModelsFailedError     no model of a chain could answer; carries a receipt of each
    ├── ChannelError                 a platform did not take a message; ends at the courier
    │   ├── ChannelRefusedError      it has certainly not arrived; `.permanent` says whether to try again
    │   └── SendUnknownError         nobody knows whether it arrived
    ├── ResourceError                disk full, out of handles, read-only; stops the turn, explained
    │   ├── StateAwayError           the database cannot be reached for now; a turn is put back in its place
    │   └── StoreStoppedError        the ledger failed or was replaced; this process must end
    ├── InputError                   the caller's; fix the call
    │   ├── InputConflictError       same idempotency key, another body (HTTP 409)
    │   ├── InputTooLargeError       over a stated limit (HTTP 413)
    │   ├── UnknownSessionError, UnknownInputError   no such thing (HTTP 404)
    │   ├── TranscriptFormatError    not a transcript; refused or set aside, never overwritten
    │   └── ConfigError              exit code 78; lists every fault at once
    ├── TurnLimitError               steps, seconds or bytes of a turn used up (a named outcome)
    │   └── SpendingLimitError       what models may cost is used up; carries `.scope`, `.opens_at_ms`
    ├── TurnCancelledError           somebody asked the turn to stop; carries `.by`
    ├── TurnStalledError             recovery asked it to end, since it stood still; carries `.why`
    └── StateVersionError            the state directory was written by a newer Holdfast

Each class knows whose `fault` it is ("caller", "provider", "channel", "coordination", "resource") and whether trying
the same call `again` can help.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from holdfast.session.fence import Verdict


class HoldfastError(Exception):
    """Base of all errors raised on purpose."""

    fault: ClassVar[str] = "caller"
    again: ClassVar[bool] = False


# ── who may write ────────────────────────────────────────────────────────────────────────────────────────────────────


class CoordinationError(HoldfastError):
    """Who may write a session was in question. Never a model's failure: failover does not accept it."""

    fault = "coordination"
    again = True


class OwnershipLostError(CoordinationError):
    """The turn no longer owns its session. Stop writing; a lost turn stays lost. Its finished answer is salvaged."""

    again = False


class SessionTakeoverError(OwnershipLostError):
    """The fence found that somebody else wrote, or owns, the session. `.verdict` says who and what."""

    def __init__(self, verdict: Verdict, path: str) -> None:
        self.verdict = verdict
        self.path = path
        by = f" (by {verdict.by})" if verdict.by else ""
        super().__init__(
            "session file changed while embedded prompt lock was released: "
            f"{path}: {verdict.kind}{by}: {verdict.detail}"
        )


class SessionBusyError(CoordinationError):
    """Somebody else's turn owned the session for longer than the caller was ready to wait. Nothing was written."""

    def __init__(self, session: str, waited_s: float, holder: str) -> None:
        self.session = session
        self.waited_s = waited_s
        self.holder = holder
        super().__init__(
            f"session {session!r} is busy: waited {waited_s:.1f} s for {holder}; try again or raise wait_s"
        )


class SessionWriteLockTimeoutError(CoordinationError):
    """The write lock was not granted in time. Nothing was written; trying again may help."""

    def __init__(self, path: str, timeout_ms: int, holder: str) -> None:
        self.path = path
        self.timeout_ms = timeout_ms
        self.holder = holder
        super().__init__(
            f"session file locked (timeout {timeout_ms}ms): {holder} {path}; if that process is stopped, continue it "
            f"(kill -CONT) or end it, then try again"
        )


class SessionWriteLockStaleError(CoordinationError):
    """A lock file that its rules call stale could not be taken over. Nothing was written; remove the file by hand."""

    def __init__(self, path: str, holder: str, reasons: Sequence[str]) -> None:
        self.path = path
        self.holder = holder
        self.stale_reasons = tuple(reasons) or ("unknown",)
        super().__init__(
            f"session file lock stale ({', '.join(self.stale_reasons)}): {holder} {path}; if no OpenClaw runs with it, "
            f"remove that file, then try again"
        )


class SessionWriteLockLostError(CoordinationError):
    """Another program took over our lock file while this process stood still. Nothing was written; trying again may
    help.
    """


class SessionMovedError(CoordinationError):
    """The session key was bound to another transcript while we asked for it. Nothing was claimed; ask again."""


class WaitRingError(CoordinationError):
    """Waiting for this session would close a ring of turns waiting for each other. Refused at once."""

    again = False


class TranscriptUnsettledError(CoordinationError):
    """The end of the transcript is torn, replaced or cut. Metadata is not written until a turn has judged it."""


class DrainingError(CoordinationError):
    """The process is shutting down and takes no new work. `.retry_after_s` says when to ask again."""

    def __init__(self, retry_after_s: int = 5) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"shutting down: no new input is accepted; try again in {retry_after_s} s")


# ── the model's side ─────────────────────────────────────────────────────────────────────────────────────────────────


class ProviderError(HoldfastError):
    """A model provider failed. The only family that the failover loop accepts.

    Args:
        status: HTTP status or None.
        code: the provider's own error code or type, verbatim.
        body: the error body as text or parsed JSON, cut to 4 KiB.
        reason: a failure class if the raiser already knows it (see `holdfast.model.failure`).
        sent: whether the request may have reached the provider (False: refused before it was sent).
        partial: text that had been streamed before the failure; kept for people, never the answer.
    """

    fault = "provider"
    again = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        body: Any = None,
        reason: str | None = None,
        retry_after_s: float | None = None,
        sent: bool = True,
        partial: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.provider = provider
        self.model = model
        self.body = body
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.sent = sent
        self.partial = partial


class AllModelsFailedError(ProviderError):
    """Several models of a chain failed or were passed over. Its cause is the last failure.

    Args:
        attempts: (model reference, its error), in the order they were asked. `reason` is their class if they share one.
        passed_over: (model reference, reason, seconds left) of those that were in a cool-down.
        soonest_s: when the first of them may be asked again; `retry_after_s` is the same, or else the shortest wait any
            of them asked for.
    """

    def __init__(
        self,
        attempts: Sequence[tuple[str, ProviderError]],
        passed_over: Sequence[tuple[str, str, float]] = (),
        soonest_s: float | None = None,
    ) -> None:
        self.attempts = tuple(attempts)
        self.passed_over = tuple(passed_over)
        self.soonest_s = soonest_s
        failures = [failure for _, failure in self.attempts]
        reasons = {failure.reason for failure in failures} | {reason for _, reason, _ in self.passed_over}
        waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
        told = [f"{model}: {failure} ({failure.reason or 'unclassified'})" for model, failure in self.attempts]
        told += [f"{model}: left alone for {left:.0f} s ({reason})" for model, reason, left in self.passed_over]
        super().__init__(
            f"All models failed ({len(told)}): {' | '.join(told)}",
            reason=reasons.pop() if len(reasons) == 1 else None,
            retry_after_s=soonest_s if soonest_s is not None else min(waits, default=None),
            sent=any(failure.sent for failure in failures),
        )


# ── the channel's side ───────────────────────────────────────────────────────────────────────────────────────────────


class ChannelError(HoldfastError):
    """A platform did not confirm a message. Raised by channel adapters, ends at the courier (`outbox/delivery.py`)."""

    fault = "channel"
    again = True


class ChannelRefusedError(ChannelError):
    """The message has not arrived and will not.

    Args:
        permanent: trying again cannot help (no such chat, bot blocked); the delivery has failed.
        retry_after_s: how long the platform asks to wait before the next try, or None.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_s = retry_after_s


class SendUnknownError(ChannelError):
    """The message may or may not have arrived. Never sent again without a label, unless the platform can be asked."""

    again = False


# ── this machine ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ResourceError(HoldfastError):
    """The machine could not do it: disk full, read-only, out of handles, input/output error. The turn stops,
    explained.
    """

    fault = "resource"
    again = True


class StateAwayError(ResourceError):
    """The database of the state cannot be reached for now. Nothing was recorded; a turn that meets it is put back in
    its place.
    """


class StoreStoppedError(ResourceError):
    """The ledger failed to sync or was replaced under this process, which must end. Accepted work is kept on disk."""

    again = False


# ── the caller ───────────────────────────────────────────────────────────────────────────────────────────────────────


class InputError(HoldfastError):
    """The caller's mistake. The message says what to change."""


class InputConflictError(InputError):
    """The same idempotency key came with another body. Nothing was stored."""


class InputTooLargeError(InputError):
    """Over a stated limit. Nothing was stored."""


class UnknownSessionError(InputError):
    """No such session."""


class UnknownInputError(InputError):
    """No such input, turn or message id."""


class TranscriptFormatError(InputError):
    """The file is not a transcript (no valid header, a directory, a pipe, a link out of the state). Never
    overwritten.
    """


class ConfigError(InputError):
    """The configuration is wrong. `.faults` holds one line per fault, each with the key's path."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("configuration: " + "; ".join(faults))


class StateVersionError(HoldfastError):
    """The state directory was written by a newer Holdfast. Upgrade, or point --state elsewhere; nothing was touched."""


# ── named ends of a turn ─────────────────────────────────────────────────────────────────────────────────────────────


class TurnLimitError(HoldfastError):
    """A limit of the turn was reached. `.limit` names it: "steps", "seconds", "silence", "tool_seconds",
    "output_bytes", "context_overflow", or a loop of calls ("same_call", "ping_pong", "too_many_calls")."""

    def __init__(self, limit: str, message: str) -> None:
        self.limit = limit
        super().__init__(message)


class SpendingLimitError(TurnLimitError):
    """What models may cost is used up. Nobody was asked: it is no model's failure, no other model is tried and none is
    left alone for it. `.scope` names the limit, `.opens_at_ms` says when it opens again (of one turn: never).
    """

    def __init__(self, message: str, scope: str, opens_at_ms: int) -> None:
        self.scope = scope
        self.opens_at_ms = opens_at_ms
        super().__init__("spending", message)


class TurnStalledError(HoldfastError):
    """Recovery has asked the turn to end, since it stood still for longer than it may. `.why`: what was not heard of.

    Its input fails and says so; nothing is asked again by itself, since it would stand still again.
    """

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"stopped by recovery: {why}")


class TurnCancelledError(HoldfastError):
    """Somebody asked the turn to stop. `.by` says who."""

    def __init__(self, by: str) -> None:
        self.by = by
        super().__init__(f"cancelled by {by}")
