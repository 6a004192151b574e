"""Model references: who is meant, where it is, with what key."""

from __future__ import annotations

import pytest

from holdfast.errors import InputError, ProviderError
from holdfast.model import catalog
from holdfast.model.catalog import ProviderSettings, context_window, resolve, split_ref
from holdfast.model.clients import ModelClients
from holdfast.model.demo import DemoModel
from holdfast.testing.model import ScriptedModel


def test_the_provider_is_the_text_before_the_first_slash() -> None:
    assert split_ref("openrouter/deepseek/deepseek-chat") == ("openrouter", "deepseek/deepseek-chat")
    assert split_ref("openrouter/openrouter/auto") == ("openrouter", "openrouter/auto")
    assert split_ref("OpenAI/gpt-5") == ("openai", "gpt-5")


@pytest.mark.parametrize("ref", ["gpt-5", "", "/gpt-5", "openai/", "/"])
def test_a_reference_without_provider_or_model_is_refused_with_an_example(ref: str) -> None:
    with pytest.raises(InputError, match="provider/model"):
        split_ref(ref)


def test_a_known_provider_needs_only_its_key() -> None:
    target = resolve("anthropic/claude-sonnet-4-5", env={"ANTHROPIC_API_KEY": "key-from-env"})
    assert (target.api, target.base_url, target.api_key) == (catalog.ANTHROPIC, None, "key-from-env")
    assert resolve("ollama/llama3", env={}).base_url == "http://127.0.0.1:11434/v1"
    assert resolve("demo/demo", env={}).api == catalog.DEMO


def test_a_missing_key_is_a_provider_error_that_names_the_variable() -> None:
    with pytest.raises(ProviderError, match="OPENAI_API_KEY") as caught:
        resolve("openai/gpt-5", env={})
    assert (caught.value.reason, caught.value.sent, caught.value.provider) == ("auth", False, "openai")


def test_a_named_variable_that_is_not_set_is_named_too() -> None:
    settings = {"lab": ProviderSettings(base_url="http://lab.test/v1", api_key_env="LAB_KEY")}
    with pytest.raises(ProviderError, match="LAB_KEY"):
        resolve("lab/m", settings, {})
    assert resolve("lab/m", settings, {"LAB_KEY": "k"}).api_key == "k"


def test_an_unknown_provider_is_reached_by_its_configured_url_without_somebody_elses_key() -> None:
    target = resolve("lab/big", {"lab": ProviderSettings(base_url="http://lab.test/v1")}, {"OPENAI_API_KEY": "x"})
    assert (target.api, target.base_url, target.api_key) == (catalog.OPENAI, "http://lab.test/v1", None)


def test_an_unknown_provider_without_a_url_says_the_way_out() -> None:
    with pytest.raises(InputError, match=r"providers\.nowhere\.base_url"):
        resolve("nowhere/m", env={})


def test_an_unknown_interface_is_refused() -> None:
    with pytest.raises(InputError, match=r"providers\.lab\.api"):
        resolve("lab/m", {"lab": ProviderSettings(api="soap", base_url="http://x")}, {})


def test_a_second_account_of_a_known_interface_has_its_own_name() -> None:
    settings = {"claude-work": ProviderSettings(api=catalog.ANTHROPIC, api_key="k")}
    target = resolve("claude-work/claude-opus-4-1", settings, {})
    assert (target.provider, target.api, target.api_key) == ("claude-work", catalog.ANTHROPIC, "k")


def test_bedrock_takes_its_region_from_configuration_then_environment_and_no_key() -> None:
    env = {"AWS_REGION": "eu-west-1"}
    assert resolve("bedrock/amazon.nova-pro-v1:0", env=env).region == "eu-west-1"
    configured = {"amazon-bedrock": ProviderSettings(region="us-east-1")}
    target = resolve("bedrock/amazon.nova-pro-v1:0", configured, env)
    assert (target.region, target.api_key, target.api) == ("us-east-1", None, catalog.BEDROCK)


def test_a_key_is_never_shown() -> None:
    settings = ProviderSettings(api_key="very-secret", base_url="http://x")
    assert "very-secret" not in repr(settings)
    assert "very-secret" not in repr(resolve("lab/m", {"lab": settings}, {}))


@pytest.mark.parametrize(
    ("ref", "tokens"),
    [
        ("anthropic/claude-sonnet-4-5", 200_000),
        ("openrouter/anthropic/claude-sonnet-4.5", 200_000),
        ("bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0", 200_000),
        ("openai/gpt-4.1-mini", 1_047_576),
        ("lab/never-heard-of-it", catalog.CONTEXT_WINDOW_DEFAULT),
    ],
)
def test_context_windows_are_found_by_the_longest_beginning(ref: str, tokens: int) -> None:
    assert context_window(ref) == tokens


def test_a_configured_context_window_wins() -> None:
    assert context_window("openai/gpt-5", {"openai": ProviderSettings(context_windows={"gpt-5": 9000})}) == 9000


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.20:8000", True),
        ("http://10.0.0.7/v1", True),
        ("http://172.20.0.2", True),
        ("http://169.254.1.1", True),
        ("http://[fd00::1]/v1", True),
        ("http://localhost:1234/v1", True),
        ("http://LOCALHOST.:1234/v1", True),
        ("http://box.localhost/v1", True),
        ("http://studio.local:1234/v1", True),
        ("http://ollama:11434/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
        ("https://172.33.0.1/v1", False),
        ("https://local.example.com/v1", False),
        ("https://not-local.example/v1", False),
        ("http://[::1", False),
        ("", False),
        (None, False),
    ],
)
def test_a_server_of_ones_own_is_told_by_its_address(url: str | None, local: bool) -> None:
    assert catalog.is_local(url) is local


def test_a_stream_may_be_silent_for_longer_where_the_server_is_ones_own() -> None:
    assert resolve("openai/gpt-5", env={"OPENAI_API_KEY": "k"}).idle_timeout_s == 120
    assert resolve("bedrock/amazon.nova-pro-v1:0", env={}).idle_timeout_s == 120
    assert resolve("ollama/llama3", env={}).idle_timeout_s == 300
    assert resolve("lab/m", {"lab": ProviderSettings(base_url="http://studio.local/v1")}, {}).idle_timeout_s == 300


def test_a_configured_silence_wins_a_models_own_over_its_providers() -> None:
    lab = ProviderSettings(base_url="http://studio.local/v1", idle_timeout_s=40, idle_timeouts={"slow": 900})
    assert resolve("lab/m", {"lab": lab}, {}).idle_timeout_s == 40
    assert resolve("lab/slow", {"lab": lab}, {}).idle_timeout_s == 900


async def test_one_client_per_target_is_kept_and_nothing_is_built_before_it_is_asked() -> None:
    clients = ModelClients({"lab": ProviderSettings(base_url="http://127.0.0.1:9/v1")}, env={})
    assert clients.client_for("lab/a") is clients.client_for("lab/a")
    assert clients.client_for("lab/a") is not clients.client_for("lab/b")
    assert isinstance(clients.client_for("demo/demo"), DemoModel)
    await clients.aclose()
    await clients.aclose()


async def test_a_client_can_stand_in_for_a_provider() -> None:
    scripted = ScriptedModel("hi")
    assert ModelClients(env={}, instead={"openai": scripted}).client_for("openai/gpt-5") is scripted
