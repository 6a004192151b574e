"""What a failure can be, and the forms in which `failure_codes` and `failure_texts` say what means what. Only data.

Every rule is one row: (provider, pattern, class, source). `failure.py` reads the rows; nothing here decides. Adding one
is a line in a table and a case in `tests/cases/classification_rules.json`; a test holds that each row has its case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

REASONS = (
    "auth",  # a credential problem that may heal
    "auth_permanent",  # revoked, disabled or refused for the organisation
    "billing",  # credits or plan used up
    "rate_limit",  # a quota that fills up again
    "overloaded",  # the provider says it has too much to do
    "timeout",  # transport or transient server trouble
    "server_error",  # the provider failed inside
    "model_not_found",
    "format",  # the request is malformed for this model
    "context_overflow",  # for compaction, not for another model
    "empty_response",
    "no_error_details",
    "session_expired",  # a conversation kept by the provider is gone
    "unclassified",
)

SOURCES: dict[str, str] = {
    "anthropic": "docs.claude.com/en/api/errors",
    "anthropic plans": "messages of Claude subscriptions, as OpenClaw's users reported them",
    "aws": "docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html",
    "azure": "learn.microsoft.com/azure/ai-foundry/openai/reference; threads in tests/cases/fresh_errors.json",
    "bedrock": "docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html",
    "cerebras": "inference-docs.cerebras.ai; threads in tests/cases/fresh_errors.json",
    "cloudflare": "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors",
    "dashscope": "help.aliyun.com/zh/model-studio/error-code; threads in tests/cases/fresh_errors.json",
    "deepseek": "api-docs.deepseek.com/quick_start/error_codes",
    "fireworks": "docs.fireworks.ai/guides/inference-error-codes",
    "fresh": "what several errors of tests/cases/fresh_errors.json have in common",
    "github": "Copilot's and GitHub Models' errors; threads in tests/cases/fresh_errors.json",
    "google": "ai.google.dev/gemini-api/docs/troubleshooting",
    "grpc": "cloud.google.com/apis/design/errors (google.rpc.Code)",
    "groq": "console.groq.com/docs/errors",
    "http": "RFC 9110 section 15, RFC 6585",
    "huggingface": "the router for inference providers; threads in tests/cases/fresh_errors.json",
    "litellm": "docs.litellm.ai/docs/exception_mapping",
    "llama.cpp": "github.com/ggml-org/llama.cpp/pull/15780",
    "lm studio": "github.com/lmstudio-ai/lmstudio-bug-tracker/issues/546",
    "mistral": "threads in tests/cases/fresh_errors.json",
    "moonshot": "platform.moonshot.ai/docs/api/chat (error descriptions)",
    "node": "nodejs.org/api/errors.html and undici's list of errors",
    "ollama": "github.com/ollama/ollama/issues/4159",
    "openai": "platform.openai.com/docs/guides/error-codes/api-errors",
    "openclaw": "errors OpenClaw's users reported; tests/cases/failover_classification.json",
    "openrouter": "openrouter.ai/docs/api-reference/errors",
    "ours": "holdfast.model.errors, holdfast.model.catalog, holdfast.model.pydantic_ai",
    "perplexity": "docs.perplexity.ai; threads in tests/cases/fresh_errors.json",
    "posix": "errno(3)",
    "python": "the exceptions of Python and of the SDKs in holdfast.model.errors",
    "siliconflow": "github.com/FoundationAgents/OpenManus/issues/438",
    "tgi": "github.com/huggingface/text-generation-inference, router/src/validation.rs",
    "volcengine": "github.com/volcengine/MineContext/issues/328",
    "xai": "docs.x.ai/docs/key-information/debugging; threads in tests/cases/fresh_errors.json",
    "zhipu": "docs.bigmodel.cn/cn/faq/api-code and other Chinese providers",
}
"""The short names that rows give as their source."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a table.

    Args:
        provider: only for this provider's errors; None: for all.
        pattern: a code, a status, a class name, or a regular expression that is searched in the lower-case text.
        reason: the class it means.
        source: a key of `SOURCES`: where it was seen or is documented.
        status: a wording only: beside this HTTP status; None: beside any or none.
        kind: "code", "status", "name" or "text": what `pattern` is.
        unless: a status only: classes that the error's own code or text may put in this one's place.
    """

    provider: str | None
    pattern: str
    reason: str
    source: str
    status: int | None = None
    unless: tuple[str, ...] = ()
    kind: str = "code"


def code_key(code: str) -> str:
    """A code in the form it is compared in: "ThrottlingException" and "THROTTLING_EXCEPTION" are one."""
    return _NOT_IN_KEYS.sub("", code.lower())


def by_code(rows: Iterable[tuple[str | None, str, str, str]]) -> dict[str, tuple[Rule, ...]]:
    """Rows by `code_key`, those of one provider before those of all."""
    found: dict[str, list[Rule]] = {}
    for row in rows:
        found.setdefault(code_key(row[1]), []).append(Rule(*row))
    return {key: tuple(sorted(rules, key=lambda rule: rule.provider is None)) for key, rules in found.items()}


def compiled(
    rows: Iterable[tuple[str | None, str, str, str]], *, status: int | None = None
) -> Iterator[tuple[Rule, re.Pattern[str]]]:
    """Wordings as rules with their expressions, in the order of the rows."""
    for row in rows:
        yield Rule(*row, status, kind="text"), re.compile(row[1], re.DOTALL)


_NOT_IN_KEYS = re.compile(r"[^a-z0-9]")

# ── statuses ─────────────────────────────────────────────────────────────────────────────────────────────────────────

_TRANSIENT = ("overloaded", "server_error", "billing", "rate_limit", "context_overflow")
_ANY_BUT_TRANSPORT = tuple(reason for reason in REASONS if reason not in ("timeout", "server_error"))
_REQUEST = ("billing", "context_overflow", "auth", "auth_permanent", "rate_limit", "model_not_found")

STATUSES: dict[int, Rule] = {
    status: Rule(None, str(status), reason, source, unless=unless, kind="status")
    for status, reason, source, unless in (
        (400, "format", "http", _ANY_BUT_TRANSPORT),
        (401, "auth", "http", ("auth_permanent", "billing")),
        (402, "billing", "http", ("rate_limit",)),
        (403, "auth", "http", ("auth_permanent", "billing", "rate_limit", "model_not_found")),
        (404, "model_not_found", "openai", ("session_expired", "auth", "auth_permanent", "billing")),
        (408, "timeout", "http", ("overloaded",)),
        (409, "timeout", "openclaw", ()),
        (410, "timeout", "openclaw", ("session_expired", "auth", "auth_permanent", "billing", "model_not_found")),
        (413, "context_overflow", "anthropic", ("rate_limit", "billing")),
        (422, "format", "http", _REQUEST),
        (424, "server_error", "bedrock", ("overloaded",)),  # the model itself failed
        (429, "rate_limit", "http", ("billing", "overloaded")),
        (499, "timeout", "openclaw", ("overloaded",)),
        (500, "server_error", "http", ("overloaded", "billing", "rate_limit", "context_overflow", "timeout")),
        (502, "timeout", "http", _TRANSIENT),
        (503, "timeout", "http", _TRANSIENT),
        (504, "timeout", "http", _TRANSIENT),
        (520, "timeout", "cloudflare", ()),
        (521, "timeout", "cloudflare", ()),
        (522, "timeout", "cloudflare", ()),
        (523, "timeout", "cloudflare", ()),
        (529, "overloaded", "anthropic", ("billing",)),
    )
}

# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# Class names that mean something when nothing else does, of any library.
NAMES: dict[str, Rule] = {
    name: Rule(None, name, reason, source, kind="name")
    for name, reason, source in (
        ("TimeoutError", "timeout", "python"),
        ("AbortError", "timeout", "node"),
        ("APITimeoutError", "timeout", "python"),
        ("ReadTimeout", "timeout", "python"),
        ("ConnectTimeout", "timeout", "python"),
        ("PoolTimeout", "timeout", "python"),
        ("ConnectError", "timeout", "python"),
        ("ReadError", "timeout", "python"),
        ("RemoteProtocolError", "timeout", "python"),
        ("APIConnectionError", "timeout", "python"),
        ("ModelTimeoutError", "timeout", "python"),
        ("ModelConnectionError", "timeout", "python"),
        ("ConnectionError", "timeout", "python"),
        ("ConnectionResetError", "timeout", "python"),
        ("ConnectionRefusedError", "timeout", "python"),
        ("BrokenPipeError", "timeout", "python"),
        ("IncompleteReadError", "timeout", "python"),
        ("ModelContextWindowExceededError", "context_overflow", "python"),
        ("NoCredentialsError", "auth", "python"),
    )
}

# ── others ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# Which classes an error's words may put in the place of what its code says: the codes are coarser than the words.
MORE_EXACT: dict[str, tuple[str, ...]] = {
    "rate_limit": ("billing",),  # used-up credits, sent as a rate limit
    "server_error": ("overloaded", "context_overflow"),
    "format": STATUSES[400].unless,
}

# Names of a provider that mean the same one to a rule. "google-vertex" is "google" by its beginning.
PROVIDER_ALIASES = {
    "alibaba": "dashscope",
    "amazon-bedrock": "bedrock",
    "gemini": "google",
    "qwen": "dashscope",
    "x-ai": "xai",
}

# A body that says nothing. Beside 400 and 422 such an error stays without a class, so that nothing loops on "format".
NO_BODY = re.compile(r"(?:no (?:response )?body|no body response)\W*$|\(no body\)", re.IGNORECASE)

# Who may write was in question: ours, and the names the older system gave them.
COORDINATION_NAMES = frozenset(
    {
        "CoordinationError",
        "OwnershipLostError",
        "SessionTakeoverError",
        "SessionBusyError",
        "SessionMovedError",
        "SessionWriteLockLostError",
        "SessionWriteLockStaleError",
        "SessionWriteLockTimeoutError",
        "WaitRingError",
        "TranscriptUnsettledError",
        "DrainingError",
        "EmbeddedAttemptSessionTakeoverError",
        "EmbeddedAttemptSessionFileOwnerTimeoutError",
    }
)
COORDINATION_CODES = frozenset({"openclawsessionwritelocktimeout", "openclawsessionwritelockstale"})
# Their messages, for errors whose class was lost on the way.
COORDINATION_TEXT = re.compile(
    r"session file changed while embedded prompt lock was released|session file lock(?:ed \(timeout| stale \()"
)
