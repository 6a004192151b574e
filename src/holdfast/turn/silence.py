"""How long a model may say nothing in a run before the run itself ends: one decision, from what is said where.

Two limits are told apart by whose they are. A **model's** (`providers.NAME.idle_timeout_s`) ends its stream: the next
model is asked. A **run's** (`silence_s` of its job, else of its agent, else of `[turn]`) ends the run as timed out,
explained; while it has one, its models may be silent for as long, whatever their provider is granted. Where nothing is
said the provider's limit holds, and no run is silent for longer than `BACKSTOP_S`: a provider can keep a connection
alive for ever and say nothing. Plain functions; whoever looks at the queue asks once a second.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.recovery.progress import Progress

BACKSTOP_S = 1800.0
"""Fifteen times what a provider is granted (`catalog.IDLE_TIMEOUT_S`): nobody waits for that, and no model thinks so
long without a sign."""
SILENCE_S_MAX = 86_400
"""What may be said at most. Before that a turn's, a job's or a sub-agent's own limit ends it as a rule."""
SILENT_TOO_LONG = "timed out"
"""With this begins what is said of a run that has ended so."""
GRACE_S = 30.0
"""So much later than the run its model's client gives up, so that the run ends and its model has not failed."""


@dataclass(frozen=True, slots=True)
class Silence:
    """What a run has.

    Args:
        limit_s: how long one request may bring nothing. is_own: somebody has said so for this run.
    """

    limit_s: float = BACKSTOP_S
    is_own: bool = False

    @property
    def request_timeout_s(self) -> float | None:
        """What the client of a model is told; None: its provider's own limit holds."""
        return self.limit_s + GRACE_S if self.is_own else None

    def of_model(self, idle_limit_s: float | None) -> float | None:
        """After how long a request ends by itself, for whoever watches. `idle_limit_s`: what its client says."""
        return self.limit_s if self.is_own else idle_limit_s


def choose_silence(*said: float | None) -> Silence:
    """The limit of a run, from what is said for it: the nearest (its job's) first; None: nothing is."""
    nearest = next((one for one in said if one is not None), None)
    return Silence() if nearest is None else Silence(min(nearest, SILENCE_S_MAX), is_own=True)


def why_over(silence: Silence, progress: Progress, mono: float) -> str | None:
    """Why a run is to end now, in words; None: it is not. Only a model's silence counts: a tool, a pause and a person
    have limits of their own.
    """
    if progress.doing != "model":
        return None
    limit_s = silence.limit_s
    if not silence.is_own and progress.limit_s is not None:
        limit_s = max(limit_s, progress.limit_s + GRACE_S)  # a provider that is granted more has more
    still_s = mono - progress.heard_mono
    if still_s <= limit_s:
        return None
    model = progress.name or "the model"
    return f"{SILENT_TOO_LONG}: {model} had said nothing for {still_s:.0f} s; send it again to try once more"
