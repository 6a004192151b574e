"""What the classes of other libraries mean, by their dotted names: one row each. No SDK is imported.

A row is looked up for each class in an error's method resolution order, nearest first, so a base stands for what it
does not name. `errors.py` reads them. A test walks the exception trees of the installed SDKs and holds that each class
of theirs becomes one of ours with a class of failure, or is listed there with the reason why not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """What a class of another library means.

    Args:
        code: our code, where the provider gave none of its own.
        reason: the failure class, where the class alone says it.
        otherwise: the failure class where neither status nor code nor words say one.
        sent: False: the request never left this machine.
        fault: "provider", or "caller" for a mistake in the call or the configuration.
    """

    code: str | None = None
    reason: str | None = None
    otherwise: str | None = None
    sent: bool = True
    fault: str = "provider"


_TIMEOUT = Row("timeout")
_NOT_SENT = Row("connection_error", sent=False)
_NOT_SENT_IN_TIME = Row("timeout", sent=False)
_BROKEN = Row("connection_error")
_ODD = Row("unexpected_response")
_NO_CREDENTIALS = Row("no_credentials", reason="auth", sent=False)
_CALLER = Row(fault="caller", sent=False)
_REFUSED_HERE = Row("sdk_error", otherwise="format", sent=False)

TABLE: dict[str, Row] = {
    # ── pydantic-ai ──
    "pydantic_ai.exceptions.ModelRequestTimeout": _TIMEOUT,
    "pydantic_ai.exceptions.ModelTimeoutError": _TIMEOUT,
    "pydantic_ai.exceptions.ModelConnectionError": _BROKEN,
    "pydantic_ai.exceptions.ModelContextWindowExceededError": Row("context_length_exceeded", reason="context_overflow"),
    "pydantic_ai.exceptions.ModelOverloadedError": Row("overloaded", reason="overloaded"),
    "pydantic_ai.exceptions.ModelUnavailableError": Row(otherwise="timeout"),
    "pydantic_ai.exceptions.ModelRateLimitError": Row(otherwise="rate_limit"),
    "pydantic_ai.exceptions.ModelQuotaExceededError": Row(otherwise="billing"),
    "pydantic_ai.exceptions.ModelAuthenticationError": Row(otherwise="auth"),
    "pydantic_ai.exceptions.ModelNotFoundError": Row(otherwise="model_not_found"),
    "pydantic_ai.exceptions.ModelRequestRejectedError": Row(otherwise="format"),
    "pydantic_ai.exceptions.ModelServerError": Row(otherwise="server_error"),
    "pydantic_ai.exceptions.ContentFilterError": Row("content_filter"),
    "pydantic_ai.exceptions.UnexpectedModelBehavior": _ODD,
    "pydantic_ai.exceptions.ModelAPIError": Row(),
    "pydantic_ai.providers._oauth_provider._CredentialsError": _NO_CREDENTIALS,
    "pydantic_ai.exceptions.UserError": _CALLER,
    # ── openai ──
    "openai.APITimeoutError": _TIMEOUT,
    "openai.APIConnectionError": _BROKEN,
    "openai.APIResponseValidationError": _ODD,
    "openai.InternalServerError": Row(otherwise="server_error"),
    "openai.WebSocketConnectionClosedError": _BROKEN,
    "openai.OAuthError": _NO_CREDENTIALS,
    "openai._exceptions.SubjectTokenProviderError": _NO_CREDENTIALS,
    "openai.auth._x509._TransientTokenExchangeError": _NOT_SENT,
    "openai.lib.azure.MutuallyExclusiveAuthError": _CALLER,
    "openai._AmbiguousModuleClientUsageError": _CALLER,
    "openai.OpenAIError": Row(),
    # ── anthropic ──
    "anthropic.APITimeoutError": _TIMEOUT,
    "anthropic.APIConnectionError": _BROKEN,
    "anthropic.APIResponseValidationError": _ODD,
    "anthropic.InternalServerError": Row(otherwise="server_error"),
    "anthropic.PreconditionFailedError": Row(otherwise="format"),
    "anthropic.RequestHeaderFieldsTooLargeError": Row(otherwise="format"),
    "anthropic.CredentialsError": _NO_CREDENTIALS,
    "anthropic.lib.credentials._workload.WorkloadIdentityError": _NO_CREDENTIALS,
    "anthropic.lib.foundry.MutuallyExclusiveAuthError": _CALLER,
    "anthropic.lib._extras._common.MissingDependencyError": _CALLER,
    "anthropic.AnthropicError": Row(),
    # ── httpx, which httpx2 is under another name, and what it is made of ──
    "httpx.InvalidURL": _CALLER,
    "httpx.UnsupportedProtocol": _CALLER,
    "httpx.ConnectTimeout": _NOT_SENT_IN_TIME,
    "httpx.PoolTimeout": _NOT_SENT_IN_TIME,
    "httpx.ConnectError": _NOT_SENT,
    "httpx.ProxyError": _NOT_SENT,
    "httpx.TimeoutException": _TIMEOUT,
    "httpx.HTTPError": _BROKEN,
    "httpx.StreamError": _BROKEN,
    "httpx.CookieConflict": _ODD,
    "httpcore.UnsupportedProtocol": _CALLER,
    "httpcore.ConnectTimeout": _NOT_SENT_IN_TIME,
    "httpcore.PoolTimeout": _NOT_SENT_IN_TIME,
    "httpcore.ConnectError": _NOT_SENT,
    "httpcore.ProxyError": _NOT_SENT,
    "httpcore.ConnectionNotAvailable": _NOT_SENT,
    "httpcore.TimeoutException": _TIMEOUT,
    "httpcore.NetworkError": _BROKEN,
    "httpcore.ProtocolError": _BROKEN,
    "h11._util.ProtocolError": _BROKEN,
    "anyio.BrokenResourceError": _BROKEN,
    "anyio.ClosedResourceError": _BROKEN,
    "anyio.EndOfStream": _BROKEN,
    # ── botocore, and urllib3 below it ──
    "botocore.exceptions.ConnectTimeoutError": _NOT_SENT_IN_TIME,
    "botocore.exceptions.ReadTimeoutError": _TIMEOUT,
    "botocore.exceptions.ConnectionError": _NOT_SENT,
    "botocore.exceptions.HTTPClientError": _BROKEN,
    "botocore.exceptions.IncompleteReadError": _BROKEN,
    "botocore.exceptions.ChecksumError": _ODD,
    "botocore.exceptions.FlexibleChecksumError": _ODD,
    "botocore.parsers.ResponseParserError": _ODD,
    "botocore.eventstream.ParserError": _ODD,
    "botocore.exceptions.NoCredentialsError": _NO_CREDENTIALS,
    "botocore.exceptions.PartialCredentialsError": _NO_CREDENTIALS,
    "botocore.exceptions.CredentialRetrievalError": _NO_CREDENTIALS,
    "botocore.exceptions.UnknownCredentialError": _NO_CREDENTIALS,
    "botocore.exceptions.MetadataRetrievalError": _NO_CREDENTIALS,
    "botocore.exceptions.RefreshWithMFAUnsupportedError": _NO_CREDENTIALS,
    "botocore.exceptions.TokenRetrievalError": _NO_CREDENTIALS,
    "botocore.exceptions.SSOError": _NO_CREDENTIALS,
    "botocore.exceptions.LoginError": _NO_CREDENTIALS,
    "botocore.exceptions.NoAuthTokenError": _NO_CREDENTIALS,
    "botocore.utils.BadIMDSRequestError": _NO_CREDENTIALS,
    "botocore.exceptions.NoRegionError": _CALLER,
    "botocore.exceptions.InvalidRegionError": _CALLER,
    "botocore.exceptions.UnknownRegionError": _CALLER,
    "botocore.exceptions.ServiceNotInRegionError": _CALLER,
    "botocore.exceptions.ProfileNotFound": _CALLER,
    "botocore.exceptions.ConfigNotFound": _CALLER,
    "botocore.exceptions.ConfigParseError": _CALLER,
    "botocore.exceptions.InvalidConfigError": _CALLER,
    "botocore.exceptions.InvalidProxiesConfigError": _CALLER,
    "botocore.exceptions.InvalidRetryConfigurationError": _CALLER,
    "botocore.exceptions.InvalidDefaultsMode": _CALLER,
    "botocore.exceptions.InvalidEndpointConfigurationError": _CALLER,
    "botocore.exceptions.EndpointProviderError": _CALLER,
    "botocore.exceptions.BaseEndpointResolverError": _CALLER,
    "botocore.exceptions.UnknownTokenProviderError": _CALLER,
    "botocore.exceptions.MissingDependencyException": _CALLER,
    "botocore.exceptions.ParamValidationError": Row("invalid_parameters", reason="format", sent=False),
    "botocore.exceptions.ClientError": Row(),
    "botocore.exceptions.BotoCoreError": _REFUSED_HERE,
    "boto3.exceptions.Boto3Error": _REFUSED_HERE,
    "urllib3.exceptions.TimeoutError": _TIMEOUT,
    "urllib3.exceptions.HTTPError": _BROKEN,
    # ── google ──
    "google.genai.errors.UnknownApiResponseError": _ODD,
    "google.genai.errors.ContinuationInterruptedError": _BROKEN,
    "google.genai.errors.ServerError": Row(otherwise="server_error"),
    "google.genai.errors.ClientError": Row(otherwise="format"),
    "google.genai.errors.APIError": Row(),
    "google.genai._api_client.EphemeralTokenAPIKeyError": _CALLER,
    "google.auth.exceptions.TransportError": _NOT_SENT,
    "google.auth.exceptions.GoogleAuthError": _NO_CREDENTIALS,
    # ── Python ──
    "json.decoder.JSONDecodeError": _ODD,
    "socket.gaierror": _NOT_SENT,
    "ssl.SSLError": _BROKEN,
    "builtins.UnicodeDecodeError": _ODD,
    "builtins.AssertionError": _ODD,  # what one SDK raises for a page of HTML
    "builtins.ConnectionRefusedError": _NOT_SENT,
    "builtins.ConnectionError": _BROKEN,
    "builtins.TimeoutError": _TIMEOUT,
}
UNKNOWN = Row("adapter_error")

# Packages that are another one under a second name, class for class.
SAME_PACKAGE = {"httpx2": "httpx", "httpcore2": "httpcore"}


def row_of(error: BaseException) -> Row | None:
    """The table's row for an error, by the nearest class of its that has one."""
    for cls in type(error).__mro__:
        package, dot, below = f"{cls.__module__}.{cls.__qualname__}".partition(".")
        row = TABLE.get(f"{SAME_PACKAGE.get(package, package)}{dot}{below}")
        if row is not None:
            return row
    return None
