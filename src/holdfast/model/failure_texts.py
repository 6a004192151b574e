"""Wordings of errors, one row each: (provider, expression, class, source). Tried in order, first match first.

An expression is searched in the text in lower case; `.` matches line ends too. A row with a provider counts only for
errors of that provider. The forms are in `failure_rules.py`.
"""

from __future__ import annotations

from holdfast.model.failure_rules import compiled

# What several rows begin or end with.
_E_CODES = "timedout|connreset|connrefused|connaborted|pipe|hostunreach|hostdown|netunreach|netreset|notfound|ai_again"
_CREDENTIAL, _ACCOUNT = r"(?:api[ _]?key|token|credential)", r"(?:account|workspace|organi[sz]ation)"
_SAID, _ENDED = r"(?:http|returned|got a|received a|status(?: code)?:?)", r"(?:reason|finish_reason|stop reason)"
_PERIOD = r"(?:daily|weekly|monthly|organization|org)"

# Said about one provider's plan or by one relay.
_OF_ONE = (
    ("openrouter", r"key (?:budget )?limit exceeded", "billing", "openrouter"),
    ("openrouter", r"^\s*provider returned error\s*$", "timeout", "openrouter"),
    ("anthropic", r"extra usage", "billing", "anthropic plans"),
    ("google", r"exceeded your current quota, please check your plan and billing", "rate_limit", "google"),
    ("dashscope", r"error-code#token-limit", "rate_limit", "dashscope"),
    ("openrouter", r"prompt tokens limit exceeded", "billing", "openrouter"),
    ("fireworks", r"spending limit or failure to pay", "billing", "fireworks"),
    ("bedrock", r"with on-demand throughput isn.t supported", "model_not_found", "bedrock"),
)

# Beside 402, which is a bill, except where the text says that it fills up again.
_BESIDE_402 = (
    (None, r"maximum allowed .{0,20}spending limit", "billing", "openclaw"),
    (None, r"upgrade your plan\.?$", "billing", "openclaw"),
    (None, r"credit balance|insufficient (?:credits|balance|funds)|more credits", "billing", "openrouter"),
    (None, r"rate limit", "rate_limit", "openclaw"),
    (None, r"(?:automatic )?quota refresh", "rate_limit", "openclaw"),
    (None, _PERIOD + r" (?:spend(?:ing)? )?limit (?:reached|exceeded)", "rate_limit", "openclaw"),
    (None, r"limit exceeded for this billing period", "rate_limit", "openclaw"),
)

_OF_ALL = (
    # ── conversations kept by the provider ──
    (None, r"session (?:not found|expired|has expired|does not exist)", "session_expired", "openclaw"),
    (None, r"no conversation found", "session_expired", "openclaw"),
    (None, r"conversation (?:not found|expired)", "session_expired", "openclaw"),
    # ── credits and plans ──
    (None, r"insufficient[ _](?:credits?|balance|funds|quota)", "billing", "deepseek"),
    (None, r"insufficient account balance", "billing", "openclaw"),
    (None, r"credit balance (?:is )?too low", "billing", "anthropic"),
    (None, r"requires? more credits", "billing", "openrouter"),
    (None, r"payment required", "billing", "http"),
    (None, r"balance is insufficient", "billing", "siliconflow"),
    (None, r"reached the set inference limit", "billing", "volcengine"),
    (None, r"billing hard limit", "billing", "openai"),
    (None, r"used all available credits", "billing", "openclaw"),
    (None, r"used up your (?:points|credits)", "billing", "openclaw"),
    (None, r"out of (?:credits|extra usage)", "billing", "anthropic plans"),
    (None, r"purchase (?:a subscription|credits)", "billing", "openclaw"),
    (None, r"(?:doesn't|does not) have any credits", "billing", "xai"),
    (None, r"reached your specified api usage limits", "billing", "anthropic"),
    (None, r"budget has been exceeded|exceeded budget for|crossed budget", "billing", "litellm"),
    (None, r"plans? (?:&|and) billing", "billing", "anthropic"),
    (None, _SAID + r" 402(?=$| (?:from|response|error)|[.,;])", "billing", "openclaw"),
    (None, r"please (?:recharge|top up)|\btop up your|add (?:more )?(?:credits|funds)\b", "billing", "fresh"),
    (None, r"余额不足", "billing", "zhipu"),
    # ── quotas that fill up again ──
    (None, r"rate[ _-]?limit", "rate_limit", "openai"),
    (None, r"too many (?:concurrent )?requests", "rate_limit", "http"),
    (None, r"throttl", "rate_limit", "aws"),
    (None, r"quota exceeded", "rate_limit", "google"),
    (None, r"exceeded your current quota", "rate_limit", "google"),
    (None, r"resource has been exhausted", "rate_limit", "google"),
    (None, r"quota limit", "rate_limit", "openclaw"),
    (None, r"resource_exhausted", "rate_limit", "grpc"),
    (None, r"tokens? per (?:day|minute)|\btp[dm]\b", "rate_limit", "bedrock"),
    (
        None,
        r"(?:daily|weekly|monthly)(?:/(?:weekly|monthly))? limit (?:reached|exhausted|exceeded)",
        "rate_limit",
        "openclaw",
    ),
    (None, r"(?:hit|reached) your usage limit", "rate_limit", "openclaw"),
    (None, r"usage limit (?:has been )?reached", "rate_limit", "openclaw"),
    (None, r"request limit (?:exceeded|reached)", "rate_limit", "aws"),
    (None, r"频率超限|配额已用尽|额度不足|额度已用尽|请求过于频繁", "rate_limit", "zhipu"),
    # ── too long to be read ──
    (None, r"context[ _]length[ _]exceeded", "context_overflow", "openai"),
    (None, r"maximum context length", "context_overflow", "openai"),
    (None, r"context window (?:is )?exceed", "context_overflow", "litellm"),
    (None, r"exceeds? (?:the )?(?:model(?:'s)? )?context (?:window|length)", "context_overflow", "litellm"),
    (None, r"model_context_window_exceeded", "context_overflow", "anthropic"),
    (None, r"prompt is (?:too long|longer than)", "context_overflow", "anthropic"),
    (None, r"input is too long", "context_overflow", "bedrock"),
    (None, r"request_too_large|request entity too large", "context_overflow", "anthropic"),
    (None, r"(?:input|prompt).{0,40}exceeds the (?:maximum|limit).{0,20}tokens", "context_overflow", "google"),
    (None, r"input token count .{0,40}exceeds", "context_overflow", "google"),
    (None, r"reduce the length of the messages", "context_overflow", "openai"),
    (None, r"string too long\. expected a string with maximum length", "context_overflow", "openai"),
    (None, r"longer than the model's context length", "context_overflow", "litellm"),
    (None, r"exceeds? context limit", "context_overflow", "anthropic"),
    (None, r"^context overflow(?=$|[:.(])", "context_overflow", "openclaw"),
    (None, r"exceeds? the available context size|exceed n_ctx", "context_overflow", "llama.cpp"),
    (None, r"tokens when context the overflows", "context_overflow", "lm studio"),
    (None, r"`inputs`.{0,40}(?:must be <=|must have less than)", "context_overflow", "tgi"),
    (None, r"上下文(?:过长|超出|长度超出)|超出最大上下文", "context_overflow", "zhipu"),
    # ── too much to do ──
    (None, r"overloaded", "overloaded", "anthropic"),
    (None, r"experiencing high demand", "overloaded", "google"),
    (None, r"high volume of requests", "overloaded", "openclaw"),
    (None, r"(?:api|server|service) is (?:too )?busy", "overloaded", "openclaw"),
    (None, r"over capacity|at capacity", "overloaded", "openclaw"),
    (None, r"tier capacity exceeded|no capacity available", "overloaded", "mistral"),
    (None, r"server busy|maximum pending requests exceeded", "overloaded", "ollama"),
    (None, r"服务过载", "overloaded", "zhipu"),
    # ── credentials that are gone ──
    (None, _CREDENTIAL + r".{0,20}(?:revoked|deactivated|disabled|deleted)", "auth_permanent", "openclaw"),
    (None, _ACCOUNT + r".{0,20}(?:deactivated|disabled|suspended)", "auth_permanent", "openai"),
    (None, r"deactivated[ _](?:workspace|account)", "auth_permanent", "openclaw"),
    (None, r"not allowed for this organi[sz]ation", "auth_permanent", "openclaw"),
    (None, r"token could not be refreshed because you have since logged out", "auth_permanent", "openclaw"),
    # ── credentials that may heal ──
    (None, r"(?:invalid|incorrect|missing)[ _]?(?:x-)?api[ _-]?key", "auth", "openai"),
    (None, r"\bunauthori[sz]ed\b|\bunauthenticated\b", "auth", "http"),
    (None, r"authentication (?:failed|error)", "auth", "deepseek"),
    (None, r"could not (?:authenticate|validate)", "auth", "openclaw"),
    (None, r"permission[ _](?:error|denied)", "auth", "grpc"),
    (None, r"insufficient permissions?|access denied|\bforbidden\b", "auth", "http"),
    (None, r"no (?:api key|credentials) found", "auth", "openclaw"),
    (None, r"api key not valid", "auth", "google"),
    (None, r"invalid (?:token|credentials?)|token (?:has )?expired", "auth", "openclaw"),
    (None, r"oauth token refresh failed", "auth", "openclaw"),
    (None, r"failed to extract accountid from token", "auth", "openclaw"),
    (None, r"unable to locate credentials", "auth", "aws"),
    (None, r"organi[sz]ation must be verified", "auth", "openai"),
    (None, r"location is not supported|(?:region|country), .{0,30}not supported", "auth", "google"),
    (None, r"认证失败|无权访问|禁止访问|鉴权失败", "auth", "zhipu"),
    # ── models that are not there ──
    (None, r"unknown model\b|model not found|model[_ ]not[_ ]found", "model_not_found", "openclaw"),
    (None, r"the model .{1,120}does not exist", "model_not_found", "openai"),
    (None, r"invalid model(?: name| id|[.:]| '|$)", "model_not_found", "perplexity"),
    (None, r"is not supported by any provider", "model_not_found", "huggingface"),
    (None, r"is not a valid model", "model_not_found", "openrouter"),
    (None, r"\bmodel\b[^.\n]{0,80}\bis not (?:supported|available|found|enabled)\b", "model_not_found", "fresh"),
    (
        None,
        r"\bmodel\b[^.\n]{0,80}\b(?:deprecated|retired|removed|discontinued|shut down)\b",
        "model_not_found",
        "fresh",
    ),
    (None, r"no endpoints found for", "model_not_found", "openrouter"),
    (None, r"has been decommissioned", "model_not_found", "groq"),
    (None, r"model identifier is invalid", "model_not_found", "bedrock"),
    (None, r"is not allowed to use publisher model", "model_not_found", "google"),
    # ── requests in the wrong form ──
    (None, r"should match pattern", "format", "anthropic"),
    (None, r"does not support assistant message prefill", "format", "anthropic"),
    (None, r"must end with a user message", "format", "anthropic"),
    (None, r"invalid request format", "format", "openclaw"),
    (None, r"messages\.\d+\.content\.\d+\.tool_use\.id", "format", "anthropic"),
    # ── nothing said ──
    (None, r"no error details in response", "no_error_details", "openclaw"),
    (None, r'"type":\s*"server_error"', "server_error", "openai"),
    # ── transport ──
    (None, r"\btime(?:d)?[ -]?out\b|deadline exceeded", "timeout", "python"),
    (None, rf"\be(?:{_E_CODES})\b", "timeout", "posix"),
    (None, r"\bund_err_\w+", "timeout", "node"),
    (None, r"connection (?:error|reset|refused|closed|aborted)", "timeout", "python"),
    (None, r"network error|fetch failed|socket hang up", "timeout", "node"),
    (None, r"(?:operation|request|stream) was aborted|^\s*aborted\s*$|^\s*terminated\s*$", "timeout", "node"),
    (
        None,
        _ENDED + r": (?:abort|network_error|malformed_response|error)\b",
        "timeout",
        "openclaw",
    ),
    (None, r"^\s*request failed(?: after repeated internal retries)?\.?\s*$", "timeout", "openclaw"),
    (None, r"ended without (?:sending any chunks|a finish)", "timeout", "openclaw"),
    (None, r"internal server error|bad gateway", "timeout", "http"),
    (None, r"temporarily unavailable|service unavailable|gateway time-?out", "timeout", "http"),
    (None, r"^\s*an unknown error occurred\.?\s*$|unknown error, 520", "timeout", "openclaw"),
    (None, r"web server is down", "timeout", "cloudflare"),
    (None, r"请求超时|连接错误|服务繁忙|系统繁忙|内部错误", "timeout", "zhipu"),
)

TEXTS = (*compiled(_OF_ONE), *compiled(_BESIDE_402, status=402), *compiled(_OF_ALL))
