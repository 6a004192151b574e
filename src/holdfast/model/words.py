"""A failure of models in words for whoever wrote the message: what was tried, why it failed, when to try again."""

from __future__ import annotations

from holdfast.errors import AllModelsFailedError, ProviderError

TOLD_CHARS_MAX = 200

_WORDS = {
    "rate_limit": "has reached its rate limit",
    "overloaded": "is overloaded",
    "timeout": "did not answer in time",
    "server_error": "had an error of its own",
    "billing": "has no credit left, or its billing is not in order",
    "auth": "refused the key, or has none",
    "auth_permanent": "has closed the account or the key",
    "model_not_found": "is not known to its provider",
    "format": "did not take the request",
    "context_overflow": "cannot read a conversation of this length",
    "empty_response": "answered with nothing",
    "no_error_details": "failed without saying why",
    "session_expired": "no longer knows the session",
}


def in_words(reason: str | None) -> str:
    """`demo/demo` …: a failure class as the rest of a sentence."""
    return _WORDS.get(reason or "", "failed")


def explain_failure(error: ProviderError) -> str:
    """What to tell when no model has answered."""
    if isinstance(error, AllModelsFailedError):
        tried = [f"{model} {in_words(failure.reason)}" for model, failure in _last_of_each(error)]
        left = [
            f"{model} is left alone for {in_time(seconds)} more, since it {in_words(reason)}"
            for model, reason, seconds in error.passed_over
        ]
        told = f"no model could answer. {'; '.join([*tried, *left])}."
    else:
        said = " ".join(str(error).split())
        who = f"{error.provider}/{error.model} " if error.provider and error.model else "the model "
        told = f"{who}{in_words(error.reason)} ({said[:TOLD_CHARS_MAX]})."
    when = f" It makes sense to try again in {in_time(error.retry_after_s)}." if error.retry_after_s else ""
    return f"This message could not be answered: {told}{when} It is kept; send it again to try once more."


def _last_of_each(error: AllModelsFailedError) -> list[tuple[str, ProviderError]]:
    """Each model once, in the order in which they were asked first: several keys are nobody's business here."""
    return list(dict(error.attempts).items())


def in_time(seconds: float) -> str:
    """A time to wait, rounded up, in words."""
    whole = max(1, int(seconds + 0.999))
    if whole < 100:
        return f"{whole} second{'s' if whole > 1 else ''}"
    if whole < 100 * 60:
        return f"{-(-whole // 60)} minutes"
    return f"{-(-whole // 3600)} hours"
