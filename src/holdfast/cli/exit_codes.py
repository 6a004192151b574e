"""Exit codes, and which error ends with which."""

from __future__ import annotations

from holdfast.errors import ConfigError, CoordinationError, HoldfastError

DONE, FAILED, USAGE, UNAVAILABLE, TRY_AGAIN, CONFIGURATION = 0, 1, 2, 69, 75, 78
"""69, 75 and 78 are those of sysexits.h: EX_UNAVAILABLE, EX_TEMPFAIL, EX_CONFIG."""
INTERRUPTED = 130
"""128 and the number of SIGINT, as shells say it."""


class TryAgainError(HoldfastError):
    """Nothing is wrong but the moment: a full lane, a draining gateway, a wait that was too short. Exit code 75."""

    again = True


def exit_code_of(failed: HoldfastError) -> int:
    """78 for a wrong configuration, 75 where somebody else was busy and trying again can help, else 1."""
    if isinstance(failed, ConfigError):
        return CONFIGURATION
    return TRY_AGAIN if isinstance(failed, CoordinationError | TryAgainError) and failed.again else FAILED


def explain(failed: HoldfastError) -> list[str]:
    """What is said about an error, line by line: a wrong configuration lists its faults."""
    return list(failed.faults) if isinstance(failed, ConfigError) else [str(failed) or type(failed).__name__]
