"""Codes and types that providers and transports put beside an error, one row each: (provider, code, class, source).

Written as the source spells them; compared by `code_key`. The forms are in `failure_rules.py`.
"""

from __future__ import annotations

from holdfast.model.failure_rules import by_code

# Said by the provider itself.
PROVIDER_CODES = by_code(
    (
        # ── billing ──
        (None, "insufficient_quota", "billing", "openai"),
        (None, "insufficient_balance", "billing", "deepseek"),
        (None, "billing_hard_limit_reached", "billing", "openai"),
        (None, "billing_error", "billing", "anthropic"),
        (None, "billing_not_active", "billing", "openai"),
        (None, "credit_balance_exhausted", "billing", "openclaw"),
        (None, "organization_usage_limit_exceeded", "billing", "openai"),
        (None, "organization_spend_limit_exceeded", "billing", "openai"),
        (None, "project_spend_limit_exceeded", "billing", "openai"),
        (None, "insufficient_credits", "billing", "openrouter"),
        (None, "budget_exceeded", "billing", "litellm"),
        (None, "exceeded_current_quota_error", "billing", "moonshot"),
        (None, "payment_required", "billing", "http"),
        # ── rate limits ──
        ("dashscope", "insufficient_quota", "rate_limit", "dashscope"),  # its tokens per minute, in OpenAI's words
        (None, "rate_limit_exceeded", "rate_limit", "openai"),
        (None, "rate_limit_error", "rate_limit", "anthropic"),
        (None, "rate_limit_reached", "rate_limit", "openai"),
        (None, "rate_limit_reached_error", "rate_limit", "moonshot"),
        (None, "too_many_requests", "rate_limit", "http"),
        (None, "TooManyRequestsException", "rate_limit", "aws"),
        (None, "Throttling", "rate_limit", "aws"),
        (None, "Throttled", "rate_limit", "aws"),
        (None, "ThrottlingException", "rate_limit", "bedrock"),
        (None, "ServiceQuotaExceededException", "rate_limit", "bedrock"),
        (None, "RESOURCE_EXHAUSTED", "rate_limit", "grpc"),
        (None, "RequestLimitExceeded", "rate_limit", "aws"),
        (None, "slow_down", "rate_limit", "openai"),
        (None, "rate_limited", "rate_limit", "mistral"),
        (None, "too_many_requests_error", "rate_limit", "cerebras"),
        # ── overload ──
        (None, "overloaded_error", "overloaded", "anthropic"),
        (None, "overloaded", "overloaded", "ours"),
        (None, "server_is_overloaded", "overloaded", "openai"),
        (None, "engine_overloaded", "overloaded", "moonshot"),
        (None, "engine_overloaded_error", "overloaded", "moonshot"),
        (None, "MODEL_CAPACITY_EXHAUSTED", "overloaded", "google"),
        (None, "ModelNotReadyException", "overloaded", "bedrock"),
        # ── server side ──
        (None, "server_error", "server_error", "openai"),
        (None, "internal_server_error", "server_error", "http"),
        (None, "InternalServerException", "server_error", "bedrock"),
        (None, "ModelStreamErrorException", "server_error", "bedrock"),
        (None, "INTERNAL", "server_error", "grpc"),
        (None, "service_unavailable", "timeout", "http"),
        (None, "ServiceUnavailableException", "timeout", "bedrock"),
        (None, "UNAVAILABLE", "timeout", "grpc"),
        (None, "DEADLINE_EXCEEDED", "timeout", "grpc"),
        (None, "timeout_error", "timeout", "anthropic"),
        (None, "ModelTimeoutException", "timeout", "bedrock"),
        # ── credentials ──
        (None, "invalid_api_key", "auth", "openai"),
        (None, "API_KEY_INVALID", "auth", "google"),  # in the details
        (None, "authentication_error", "auth", "anthropic"),
        (None, "permission_error", "auth", "anthropic"),
        (None, "PERMISSION_DENIED", "auth", "grpc"),
        (None, "UNAUTHENTICATED", "auth", "grpc"),
        (None, "AccessDeniedException", "auth", "bedrock"),
        (None, "UnrecognizedClientException", "auth", "aws"),
        (None, "InvalidSignatureException", "auth", "aws"),
        (None, "ExpiredTokenException", "auth", "aws"),
        (None, "ExpiredToken", "auth", "aws"),
        (None, "no_api_key", "auth", "ours"),
        (None, "CE-011", "auth", "openclaw"),  # a Chinese gateway's "no access"
        (None, "deactivated_workspace", "auth_permanent", "openclaw"),
        (None, "account_deactivated", "auth_permanent", "openai"),
        (None, "api_key_revoked", "auth_permanent", "openclaw"),
        # ── the request ──
        (None, "model_not_found", "model_not_found", "openai"),
        (None, "invalid_model", "model_not_found", "perplexity"),
        (None, "INVALID_MODEL_ID", "model_not_found", "aws"),
        (None, "model_not_supported", "model_not_found", "github"),
        (None, "not_found_error", "model_not_found", "anthropic"),
        (None, "model_decommissioned", "model_not_found", "groq"),
        (None, "DeploymentNotFound", "model_not_found", "azure"),
        (None, "NOT_FOUND", "model_not_found", "grpc"),
        (None, "ResourceNotFoundException", "model_not_found", "bedrock"),
        (None, "context_length_exceeded", "context_overflow", "openai"),
        (None, "request_too_large", "context_overflow", "anthropic"),
        (None, "model_context_window_exceeded", "context_overflow", "anthropic"),
        (None, "string_above_max_length", "context_overflow", "openai"),
        (None, "exceed_context_size_error", "context_overflow", "llama.cpp"),
        (None, "invalid_request_error", "format", "openai"),
        (None, "INVALID_ARGUMENT", "format", "grpc"),
        (None, "ValidationException", "format", "bedrock"),
        (None, "tool_use_failed", "format", "groq"),
        # ── how a stream ended ──
        (None, "empty_response", "empty_response", "ours"),
        (None, "no_finish_reason", "timeout", "ours"),
        (None, "unexpected_response", "timeout", "ours"),
    )
)

# Said by the transport. They count, but are no evidence that a provider failed when a coordination error is around.
TRANSPORT_CODES = by_code(
    (
        (None, "timeout", "timeout", "ours"),
        (None, "connection_error", "timeout", "ours"),
        (None, "ETIMEDOUT", "timeout", "posix"),
        (None, "ECONNRESET", "timeout", "posix"),
        (None, "ECONNREFUSED", "timeout", "posix"),
        (None, "ECONNABORTED", "timeout", "posix"),
        (None, "EHOSTUNREACH", "timeout", "posix"),
        (None, "EHOSTDOWN", "timeout", "posix"),
        (None, "ENETUNREACH", "timeout", "posix"),
        (None, "ENETRESET", "timeout", "posix"),
        (None, "ENETDOWN", "timeout", "posix"),
        (None, "EPIPE", "timeout", "posix"),
        (None, "ENOTFOUND", "timeout", "node"),  # no such host
        (None, "EAI_AGAIN", "timeout", "node"),
        (None, "UND_ERR_CONNECT_TIMEOUT", "timeout", "node"),
        (None, "UND_ERR_HEADERS_TIMEOUT", "timeout", "node"),
        (None, "UND_ERR_BODY_TIMEOUT", "timeout", "node"),
        (None, "UND_ERR_SOCKET", "timeout", "node"),
        (None, "UND_ERR_ABORTED", "timeout", "node"),
    )
)
