"""What providers say when they fail, as data: codes, statuses and wordings, each with the class it means.

`failure.py` reads these tables; nothing here decides. Codes are compared in lower case without anything but letters and
digits ("ThrottlingException" and "THROTTLING_EXCEPTION" are one). Wordings are tried in order, first match first.
"""

from __future__ import annotations

import re
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

# ── codes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# Said by the provider itself.
PROVIDER_CODES: dict[str, str] = {
    # billing: OpenAI, Anthropic, Moonshot and gateways in front of them
    "insufficientquota": "billing",
    "insufficientbalance": "billing",
    "billinghardlimitreached": "billing",
    "billingerror": "billing",
    "billingnotactive": "billing",
    "creditbalanceexhausted": "billing",
    "exceededcurrentquotaerror": "billing",
    "paymentrequired": "billing",
    # rate limits: OpenAI, Anthropic, AWS, gRPC
    "ratelimitexceeded": "rate_limit",
    "ratelimiterror": "rate_limit",
    "ratelimitreached": "rate_limit",
    "ratelimitreachederror": "rate_limit",
    "toomanyrequests": "rate_limit",
    "toomanyrequestsexception": "rate_limit",
    "throttling": "rate_limit",
    "throttled": "rate_limit",
    "throttlingexception": "rate_limit",
    "servicequotaexceededexception": "rate_limit",
    "resourceexhausted": "rate_limit",
    "requestlimitexceeded": "rate_limit",
    # overload
    "overloadederror": "overloaded",
    "overloaded": "overloaded",
    "serverisoverloaded": "overloaded",
    "engineoverloaded": "overloaded",
    "modelnotreadyexception": "overloaded",
    # server side
    "servererror": "server_error",
    "internalservererror": "server_error",
    "internalserverexception": "server_error",
    "modelstreamerrorexception": "server_error",
    "internal": "server_error",
    "serviceunavailable": "timeout",
    "serviceunavailableexception": "timeout",
    "unavailable": "timeout",
    "deadlineexceeded": "timeout",
    "timeouterror": "timeout",
    "modeltimeoutexception": "timeout",
    # credentials
    "invalidapikey": "auth",
    "apikeyinvalid": "auth",  # Google, in the details
    "authenticationerror": "auth",
    "permissionerror": "auth",
    "permissiondenied": "auth",
    "unauthenticated": "auth",
    "accessdeniedexception": "auth",
    "unrecognizedclientexception": "auth",
    "invalidsignatureexception": "auth",
    "expiredtokenexception": "auth",
    "expiredtoken": "auth",
    "noapikey": "auth",  # ours: see catalog.py
    "ce011": "auth",  # a Chinese gateway's "no access"
    "deactivatedworkspace": "auth_permanent",
    "accountdeactivated": "auth_permanent",
    "apikeyrevoked": "auth_permanent",
    # the request
    "modelnotfound": "model_not_found",
    "contextlengthexceeded": "context_overflow",
    "requesttoolarge": "context_overflow",
    "modelcontextwindowexceeded": "context_overflow",
    "stringabovemaxlength": "context_overflow",
    # how a stream ended: ours, see errors.py and pydantic_ai.py
    "emptyresponse": "empty_response",
    "nofinishreason": "timeout",
    "unexpectedresponse": "timeout",
}

# Said by the transport. They count, but are no evidence that a provider failed when a coordination error is around.
TRANSPORT_CODES: dict[str, str] = dict.fromkeys(
    [
        "timeout",  # ours: see errors.py
        "connectionerror",
        "etimedout",
        "econnreset",
        "econnrefused",
        "econnaborted",
        "ehostunreach",
        "ehostdown",
        "enetunreach",
        "enetreset",
        "enetdown",
        "epipe",
        "enotfound",  # node: no such host
        "eaiagain",
        "underrconnecttimeout",  # undici, node's HTTP client
        "underrheaderstimeout",
        "underrbodytimeout",
        "underrsocket",
        "underraborted",
    ],
    "timeout",
)

# ── statuses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StatusRule:
    """What a status means, and which classes the error's own code or text may put in its place."""

    reason: str
    unless: tuple[str, ...] = ()


_ANY_TRANSIENT = ("overloaded", "server_error", "billing", "rate_limit", "context_overflow")

STATUSES: dict[int, StatusRule] = {
    400: StatusRule("format", tuple(reason for reason in REASONS if reason not in ("timeout", "server_error"))),
    401: StatusRule("auth", ("auth_permanent", "billing")),
    402: StatusRule("billing", ("rate_limit",)),
    403: StatusRule("auth", ("auth_permanent", "billing", "rate_limit", "model_not_found")),
    404: StatusRule("model_not_found", ("session_expired", "auth", "auth_permanent", "billing")),
    408: StatusRule("timeout", ("overloaded",)),
    409: StatusRule("timeout"),
    410: StatusRule("timeout", ("session_expired", "auth", "auth_permanent", "billing", "model_not_found")),
    413: StatusRule("context_overflow", ("rate_limit", "billing")),
    422: StatusRule(
        "format", ("billing", "context_overflow", "auth", "auth_permanent", "rate_limit", "model_not_found")
    ),
    424: StatusRule("server_error", ("overloaded",)),  # Bedrock: the model itself failed
    429: StatusRule("rate_limit", ("billing",)),
    499: StatusRule("timeout", ("overloaded",)),
    500: StatusRule("server_error", ("overloaded", "billing", "rate_limit", "context_overflow", "timeout")),
    502: StatusRule("timeout", _ANY_TRANSIENT),
    503: StatusRule("timeout", _ANY_TRANSIENT),
    504: StatusRule("timeout", _ANY_TRANSIENT),
    520: StatusRule("timeout"),
    521: StatusRule("timeout"),
    522: StatusRule("timeout"),
    523: StatusRule("timeout"),
    529: StatusRule("overloaded", ("billing",)),
}

# ── wordings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TextRule:
    """One wording.

    Args:
        reason: the class it means.
        pattern: searched in the text without regard to case.
        provider: only for this provider's errors; None: for all.
        status: only beside this HTTP status; None: beside any or none.
        source: where the wording was seen.
    """

    reason: str
    pattern: re.Pattern[str]
    provider: str | None = None
    status: int | None = None
    source: str = ""


def _rules(reason: str, source: str, *wordings: str, provider: str | None = None, status: int | None = None):
    return [TextRule(reason, re.compile(w, re.IGNORECASE), provider, status, source) for w in wordings]


TEXTS: tuple[TextRule, ...] = (
    # Said about one provider's plan.
    *_rules("billing", "openrouter key limits", r"key (?:budget )?limit exceeded", provider="openrouter"),
    *_rules("timeout", "openrouter relay", r"^\s*provider returned error\s*$", provider="openrouter"),
    *_rules("billing", "claude subscriptions", r"extra usage", provider="anthropic"),
    # 402 is a bill, except where the text says that it fills up again.
    *_rules("billing", "gateways", r"maximum allowed .{0,20}spending limit", r"upgrade your plan\.?$", status=402),
    *_rules("billing", "gateways", r"credit balance|insufficient (?:credits|balance|funds)|more credits", status=402),
    *_rules(
        "rate_limit",
        "periodic limits sent as 402",
        r"rate limit",
        r"(?:automatic )?quota refresh",
        r"(?:daily|weekly|monthly|organization|org) (?:spend(?:ing)? )?limit (?:reached|exceeded)",
        r"limit exceeded for this billing period",
        status=402,
    ),
    *_rules(
        "session_expired",
        "conversations kept by the provider",
        r"session (?:not found|expired|has expired|does not exist)",
        r"no conversation found",
        r"conversation (?:not found|expired)",
    ),
    *_rules(
        "billing",
        "openai, anthropic, moonshot, deepseek, poe",
        r"insufficient[ _](?:credits?|balance|funds|quota)",
        r"insufficient account balance",
        r"credit balance (?:is )?too low",
        r"requires? more credits",
        r"payment required",
        r"billing hard limit",
        r"used all available credits",
        r"used up your (?:points|credits)",
        r"out of (?:credits|extra usage)",
        r"purchase (?:a subscription|credits)",
        r"plans? (?:&|and) billing",
        r"(?:http|returned|got a|received a|status(?: code)?:?) 402(?=$| (?:from|response|error)|[.,;])",
        r"余额不足",
    ),
    *_rules(
        "rate_limit",
        "all providers",
        r"rate[ _-]?limit",
        r"too many (?:concurrent )?requests",
        r"throttl",
        r"quota exceeded|exceeded your current quota|resource has been exhausted|quota limit",
        r"resource_exhausted",
        r"tokens? per (?:day|minute)|\bTP[DM]\b",
        r"(?:daily|weekly|monthly)(?:/(?:weekly|monthly))? limit (?:reached|exhausted|exceeded)",
        r"(?:hit|reached) your usage limit|usage limit (?:has been )?reached",
        r"request limit (?:exceeded|reached)",
        r"频率超限|配额已用尽|额度不足|额度已用尽|请求过于频繁",
    ),
    *_rules(
        "context_overflow",
        "all providers",
        r"context[ _]length[ _]exceeded",
        r"maximum context length",
        r"context window (?:is )?exceed|exceeds? (?:the )?(?:model(?:'s)? )?context (?:window|length)",
        r"exceeds model context window",
        r"model_context_window_exceeded",
        r"prompt is (?:too long|longer than)",
        r"input is too long",
        r"request_too_large|request entity too large",
        r"(?:input|prompt).{0,40}exceeds the (?:maximum|limit).{0,20}tokens",
        r"input token count .{0,40}exceeds",
        r"reduce the length of the messages",
        r"string too long\. expected a string with maximum length",
        r"longer than the model's context length",
        r"上下文(?:过长|超出|长度超出)|超出最大上下文",
    ),
    *_rules(
        "overloaded",
        "anthropic, google, moonshot",
        r"overloaded",
        r"experiencing high demand|high volume of requests",
        r"(?:api|server|service) is (?:too )?busy",
        r"over capacity|at capacity",
        r"服务过载",
    ),
    *_rules(
        "auth_permanent",
        "openai, anthropic",
        r"(?:api[ _]?key|token|credential).{0,20}(?:revoked|deactivated|disabled|deleted)",
        r"(?:account|workspace|organi[sz]ation).{0,20}(?:deactivated|disabled|suspended)",
        r"deactivated[ _](?:workspace|account)",
        r"not allowed for this organi[sz]ation",
        r"token could not be refreshed because you have since logged out",
    ),
    *_rules(
        "auth",
        "all providers",
        r"(?:invalid|incorrect|missing)[ _]?(?:x-)?api[ _-]?key",
        r"\bunauthori[sz]ed\b|\bunauthenticated\b|authentication (?:failed|error)|could not (?:authenticate|validate)",
        r"permission[ _](?:error|denied)|insufficient permissions?|access denied|\bforbidden\b",
        r"no (?:api key|credentials) found|api key not valid",
        r"invalid (?:token|credentials?)|token (?:has )?expired|oauth token refresh failed",
        r"failed to extract accountid from token",
        r"unable to locate credentials",
        r"认证失败|无权访问|禁止访问|鉴权失败",
    ),
    *_rules(
        "model_not_found",
        "openai, anthropic, openrouter",
        r"unknown model\b|model not found|model[_ ]not[_ ]found",
        r"the model .{1,120}does not exist",
        r"is not a valid model",
        r"no endpoints found for",
    ),
    *_rules(
        "format",
        "openai, anthropic",
        r"should match pattern",
        r"does not support assistant message prefill",
        r"must end with a user message",
        r"invalid request format",
        r"messages\.\d+\.content\.\d+\.tool_use\.id",
    ),
    *_rules("no_error_details", "openclaw", r"no error details in response"),
    *_rules("server_error", "openai", r'"type":\s*"server_error"'),
    *_rules(
        "timeout",
        "transport, node, proxies",
        r"\btime(?:d)?[ -]?out\b|deadline exceeded",
        r"\bE(?:TIMEDOUT|CONNRESET|CONNREFUSED|CONNABORTED|PIPE|HOSTUNREACH|HOSTDOWN|NETUNREACH|NETRESET|NOTFOUND|AI_AGAIN)\b",
        r"\bUND_ERR_\w+",
        r"connection (?:error|reset|refused|closed|aborted)|network error|fetch failed|socket hang up",
        r"(?:operation|request|stream) was aborted|^\s*aborted\s*$|^\s*terminated\s*$",
        r"(?:reason|finish_reason|stop reason): (?:abort|network_error|malformed_response|error)\b",
        r"^\s*request failed(?: after repeated internal retries)?\.?\s*$",
        r"ended without (?:sending any chunks|a finish)",
        r"internal server error|bad gateway|service (?:temporarily )?unavailable|gateway time-?out",
        r"^\s*an unknown error occurred\.?\s*$|unknown error, 520",
        r"web server is down",
        r"请求超时|连接错误|服务繁忙|系统繁忙|内部错误",
    ),
)

# A body that says nothing. Beside 400 and 422 such an error stays without a class, so that nothing loops on "format".
NO_BODY = re.compile(r"(?:no (?:response )?body|no body response)\W*$|\(no body\)", re.IGNORECASE)

# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# Class names that mean something when nothing else does, of any library.
NAMES: dict[str, str] = {
    "TimeoutError": "timeout",
    "AbortError": "timeout",
    "APITimeoutError": "timeout",
    "ReadTimeout": "timeout",
    "ConnectTimeout": "timeout",
    "PoolTimeout": "timeout",
    "ConnectError": "timeout",
    "ReadError": "timeout",
    "RemoteProtocolError": "timeout",
    "APIConnectionError": "timeout",
    "ModelTimeoutError": "timeout",
    "ModelConnectionError": "timeout",
    "ConnectionError": "timeout",
    "ConnectionResetError": "timeout",
    "ConnectionRefusedError": "timeout",
    "BrokenPipeError": "timeout",
    "IncompleteReadError": "timeout",
    "ModelContextWindowExceededError": "context_overflow",
    "NoCredentialsError": "auth",
}

# Who may write was in question: ours, and the names the older system gave them.
COORDINATION_NAMES = frozenset(
    {
        "CoordinationError",
        "OwnershipLostError",
        "SessionTakeoverError",
        "SessionBusyError",
        "SessionWriteLockTimeoutError",
        "SessionWriteLockStaleError",
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
    r"session file changed while embedded prompt lock was released|session file locked \(timeout"
)
