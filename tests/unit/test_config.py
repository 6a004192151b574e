"""holdfast.toml and HOLDFAST_… variables: what is taken, what is refused, and in which words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast.config import Config, load_config, read_config
from holdfast.config.keys import ANY, all_keys
from holdfast.config.show import as_toml, rows, without_password
from holdfast.errors import ConfigError
from holdfast.inbound.freshness import ResetPolicy


@pytest.fixture
def write(tmp_path: Path):
    """Writes a holdfast.toml and returns its path."""

    def write_file(text: str) -> Path:
        path = tmp_path / "holdfast.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def faults_of(path: Path | None, env: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, env or {})
    return caught.value.faults


def test_a_variable_that_a_key_names_for_its_secret_is_no_key_itself(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[hooks.mappings.ci]\nsecret_env = "HOLDFAST_HOOKS_CI"\n')
    env = {"HOLDFAST_HOOKS_TOKEN": "a secret", "HOLDFAST_HOOKS_CI": "another"}
    loaded = read_config(file, env)
    assert loaded.config.hooks.mappings["ci"].secret_env == "HOLDFAST_HOOKS_CI"


def test_without_file_and_environment_everything_has_its_default() -> None:
    config = load_config(None, {})
    assert config == Config()
    assert (config.gateway.host, config.gateway.port, config.gateway.drain_s) == ("127.0.0.1", 18890, 25.0)
    assert config.session.write_lock.acquire_timeout_ms == 60_000
    assert config.session.write_lock.max_hold_ms == 300_000
    assert (config.turn.beat_s, config.turn.beat_term_s, config.turn.max_s) == (15, 90, 172_800)
    assert config.lanes.widths["main"] >= 4
    assert {lane: config.lanes.widths[lane] for lane in ("subagent", "cron", "cron-nested", "heartbeat", "hook")} == {
        "subagent": 8,
        "cron": 1,
        "cron-nested": 1,
        "heartbeat": 1,
        "hook": 1,
    }
    assert config.models.default == "demo/demo"


def test_a_repository_of_github_is_named_as_it_is_compared(write) -> None:
    (fault,) = faults_of(write('[channels.github]\nallow_groups = ["octo-org/*", "*", "Octo-Org/Repo"]\n'))
    assert fault.startswith("channels.github.allow_groups: 'Octo-Org/Repo' names no repository: owner/repo, in small")
    assert not load_config(write("[channels.github.github]\n"), {}).channels["github"].listens("github")


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(write) -> None:
    path = write("[gateway]\nport = 1000\ndrain_s = 5\n[turn]\nsteps_max = 4\n")
    loaded = read_config(path, {"HOLDFAST_GATEWAY_PORT": "2000"})
    assert (loaded.config.gateway.port, loaded.config.gateway.drain_s, loaded.config.turn.steps_max) == (2000, 5.0, 4)
    sources = {row.key: row.source for row in rows(loaded)}
    assert sources["gateway.port"] == "HOLDFAST_GATEWAY_PORT"
    assert sources["gateway.drain_s"] == "file"
    assert sources["gateway.host"] == "default"


def test_the_write_lock_timeout_can_be_set_from_the_environment_by_its_documented_name() -> None:
    config = load_config(
        None,
        {
            "HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS": "1500",
            "HOLDFAST_SESSION_WRITE_LOCK_MAX_HOLD_MS": "2500",
        },
    )
    assert (config.session.write_lock.acquire_timeout_ms, config.session.write_lock.max_hold_ms) == (1500, 2500)


@pytest.mark.parametrize("value", ["0", "-1"])
def test_an_acquire_timeout_that_is_not_positive_falls_back_with_a_warning(value: str, write) -> None:
    from_env = read_config(None, {"HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS": value})
    from_file = read_config(write(f"[session.write_lock]\nacquire_timeout_ms = {value}\n"), {})
    for loaded, name in (
        (from_env, "HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS"),
        (from_file, "session.write_lock.acquire_timeout_ms"),
    ):
        assert loaded.config.session.write_lock.acquire_timeout_ms == 60_000
        assert loaded.warnings == (f"{name}: {value} is not a time to wait; the default of 60000 is used",)
        assert {row.source for row in rows(loaded)} == {"default"}


def test_all_faults_are_reported_at_once_each_with_its_path(write) -> None:
    path = write(
        """
        [gateway]
        port = 99999
        hots = "x"
        [session]
        fence_mod = "warn"
        [turn]
        beat_s = 60
        steps_max = "many"
        [models]
        default = "nameless"
        [agents.helper]
        steps_max = 3
        [tool]
        """
    )
    faults = faults_of(path, {"HOLDFAST_GATEWAY_PRT": "1", "HOLDFAST_TURN_MAX_S": "soon"})
    expected = [
        "HOLDFAST_GATEWAY_PRT: no such key; did you mean HOLDFAST_GATEWAY_PORT?",
        "HOLDFAST_TURN_MAX_S: must be a valid integer, got 'soon'",
        f"gateway.port: must be less than or equal to 65535, got 99999 ({path})",
        f'gateway.hots: unknown key; did you mean "gateway.host"? ({path})',
        f'session.fence_mod: unknown key; did you mean "session.fence_mode"? ({path})',
        f"turn.steps_max: must be a valid integer, got 'many' ({path})",
        f'models.default: must be "provider/model", such as "openai/gpt-5" or "demo/demo" ({path})',
        f'agents.helper.steps_max: unknown key; did you mean "turn.steps_max"? ({path})',
        f'tool: unknown key; did you mean "tools"? ({path})',
    ]
    assert sorted(faults) == sorted(expected)


def test_the_lock_protocol_is_one_of_two_words(write) -> None:
    assert load_config(write('[session]\nlock_protocol = "openclaw"\n'), {}).session.lock_protocol == "openclaw"
    (fault,) = faults_of(write('[session]\nlock_protocol = "flock"\n'))
    assert fault.startswith("session.lock_protocol:")
    assert "'none' or 'openclaw'" in fault


def test_a_term_too_short_for_its_beat_is_refused(write) -> None:
    (fault,) = faults_of(write("[turn]\nbeat_s = 40\n"))
    assert fault.startswith("turn: beat_term_s (90) must be at least 3 × beat_s (40)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gateway\n", "not TOML"),
        ("gateway = 3\n", "gateway: must be a table"),
        ("models.providers = 3\n", "models.providers: must be a table"),
        ("lanes.widths = 3\n", "lanes.widths: must be a table"),
        ("[gateway]\nport = true\n", "gateway.port: must be a valid integer, got True"),
        ("[turn]\nbeat_s = nan\n", "turn.beat_s: must be a finite number"),
        ("[lanes.widths]\nmain = 0\n", "lanes.widths.main: must be greater than 0"),
        ("x = " + "[" * 5000, "nested too deeply"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(text: str, words: str, write) -> None:
    faults = faults_of(write(text))
    assert any(words in fault for fault in faults), faults


def test_a_file_that_cannot_be_read_is_a_fault_not_a_crash(tmp_path: Path) -> None:
    missing, folder, latin = tmp_path / "missing.toml", tmp_path / "folder", tmp_path / "latin.toml"
    folder.mkdir()
    latin.write_bytes(b'[gateway]\nhost = "\xe9"\n')
    assert "cannot be read: No such file or directory" in faults_of(missing)[0]
    assert "cannot be read" in faults_of(folder)[0]
    assert "not UTF-8 text" in faults_of(latin)[0]


def test_a_variable_cannot_hide_a_fault_of_the_file(write) -> None:
    faults = faults_of(write("gateway = 3\n"), {"HOLDFAST_GATEWAY_PORT": "1"})
    assert faults[0].startswith("gateway: must be a table")


def test_naming_one_lane_in_the_file_keeps_the_widths_of_the_others(write) -> None:
    config = load_config(write("[lanes.widths]\ncron = 3\n"), {})
    assert (config.lanes.widths["cron"], config.lanes.widths["subagent"]) == (3, 8)
    assert config.lanes.limits().width("cron") == 3
    assert config.lanes.limits().width("a lane nobody named") == 1


def test_a_variable_finds_the_chosen_name_it_stands_for(write) -> None:
    path = write('[models.providers.My-Proxy]\nbase_url = "http://127.0.0.1:9/v1"\n')
    config = load_config(
        path,
        {
            "HOLDFAST_LANES_WIDTHS_CRON_NESTED": "2",
            "HOLDFAST_MODELS_PROVIDERS_MY_PROXY_API_KEY_ENV": "MY_KEY",
            "HOLDFAST_AGENTS_HELPER_MODEL": "demo/demo",
            "HOLDFAST_MODELS_FALLBACKS": "demo/a, demo/b",
        },
    )
    assert config.lanes.widths["cron-nested"] == 2
    assert config.models.providers["My-Proxy"].api_key_env == "MY_KEY"
    assert config.agents["helper"].model == "demo/demo"
    assert config.models.fallbacks == ("demo/a", "demo/b")


def test_a_variable_of_somebody_else_is_mentioned_not_refused() -> None:
    loaded = read_config(None, {"HOLDFAST_PLUGIN_COLOUR": "red", "HOLDFAST_STATE": "/tmp/x", "PATH": "/bin"})
    assert loaded.warnings == ("HOLDFAST_PLUGIN_COLOUR: not a variable of Holdfast",)


def test_an_unknown_provider_without_an_address_is_a_fault_and_a_missing_key_a_warning(write) -> None:
    (fault,) = faults_of(write('[models]\ndefault = "nowhere/x"\n'))
    assert fault.startswith("models.default: unknown model provider 'nowhere'")
    loaded = read_config(write('[models]\ndefault = "openai/x"\n'), {})
    assert len(loaded.warnings) == 1
    assert loaded.warnings[0].startswith("models.default: No API key found for provider 'openai'")
    assert read_config(write('[models]\ndefault = "openai/x"\n'), {"OPENAI_API_KEY": "k"}).warnings == ()


def test_listening_beyond_this_machine_is_mentioned() -> None:
    assert "other machines" in read_config(None, {"HOLDFAST_GATEWAY_HOST": "0.0.0.0"}).warnings[0]
    for loopback in ("127.0.0.2", "::1", "localhost"):
        assert read_config(None, {"HOLDFAST_GATEWAY_HOST": loopback}).warnings == ()


def test_an_agent_inherits_what_it_leaves_unset_and_its_own_model_has_no_inherited_fallbacks(write) -> None:
    config = load_config(
        write(
            """
            [models]
            default = "demo/one"
            fallbacks = ["demo/two"]
            [session]
            fence_mode = "warn"
            [agents.own]
            model = "demo/three"
            [agents.both]
            model = "demo/three"
            fallbacks = ["demo/one"]
            fence_mode = "strict"
            [agents.alone]
            fallbacks = []
            """
        ),
        {},
    )
    nobody, own, both, alone = (config.agent(name) for name in ("nobody", "own", "both", "alone"))
    assert (nobody.model, nobody.fallbacks, nobody.fence_mode) == ("demo/one", ("demo/two",), "warn")
    assert (own.model, own.fallbacks) == ("demo/three", ())
    assert (both.fallbacks, both.fence_mode) == (("demo/one",), "strict")
    assert (alone.model, alone.fallbacks) == ("demo/one", ())


def test_an_agent_keeps_every_key_that_it_sets_itself(write) -> None:
    config = load_config(
        write(
            """
            [agents.own]
            prompt_files = ["HOUSE.md"]
            tools = ["read"]
            silence_s = 30
            workspace = "/somewhere"
            system_prompt = "You are Ada."
            dm_scope = "per-peer"
            [agents.own.widths]
            cron = 1
            [agents.own.reset]
            idle_minutes = 5
            """
        ),
        {},
    )
    told, meant = config.agents["own"], config.agent("own")
    assert {name: getattr(meant, name) for name in told.model_fields_set} == {
        name: getattr(told, name) for name in told.model_fields_set
    }
    assert meant.prompt_files == ("HOUSE.md",)


def test_values_are_frozen() -> None:
    config = load_config(None, {})
    with pytest.raises(ValidationError, match="frozen"):
        config.gateway.port = 1
    with pytest.raises(TypeError):
        config.lanes.widths["main"] = 1  # pyright: ignore[reportIndexIssue]


def test_what_is_shown_can_be_read_back_and_means_the_same(write) -> None:
    path = write(
        """
        [models]
        fallbacks = ["demo/x"]
        [models.providers.local]
        base_url = "http://127.0.0.1:1/v1"
        context_windows = { "a/b.c" = 4096 }
        idle_timeout_s = 45
        idle_timeouts = { "a/b.c" = 600.5 }
        [agents."odd name"]
        system_prompt = "two\\nlines \\"quoted\\" \\u007f"
        """
    )
    loaded = read_config(path, {})
    text = as_toml(loaded)
    assert load_config(write(text), {}) == loaded.config
    assert tomllib.loads(text)["agents"]["odd name"]["system_prompt"] == 'two\nlines "quoted" \x7f'


def test_secrets_are_not_shown(write) -> None:
    loaded = read_config(
        write('[models.providers.p]\nbase_url = "https://me:hunter2@host/v1"\napi_key = "sk-secret"\n'), {}
    )
    shown = as_toml(loaded) + repr(loaded) + repr(rows(loaded))
    assert "sk-secret" not in shown
    assert "hunter2" not in as_toml(loaded)
    assert loaded.config.models.settings()["p"].api_key == "sk-secret"
    assert without_password("postgres://u:p@h/db") == "postgres://***@h/db"
    assert without_password("postgres://h/db") == "postgres://h/db"


def test_every_key_says_what_it_means_and_has_its_own_variable() -> None:
    found = all_keys()
    assert all(key.field.description for key in found)
    assert len({key.variable for key in found}) == len(found)
    assert ("lanes", "widths", ANY) in [key.path for key in found]


def test_names_where_discord_has_numbers_and_one_bot_for_two_channels_are_faults(write) -> None:
    file = write(
        """
[channels.discord]
allow_groups = ["#general", "4001", "40*"]
allow_from = ["ann"]
[channels.work]
kind = "discord"
[channels.other]
kind = "discord"
discord.token_env = "OTHER_BOT"
[channels.off]
kind = "discord"
enabled = false
[channels.slack]
allow_groups = ["C1"]
"""
    )
    with pytest.raises(ConfigError) as refused:
        load_config(file, {})
    faults = refused.value.faults
    assert [fault.partition(":")[0] for fault in faults] == [
        "channels.discord.allow_from", "channels.discord.allow_groups", "channels.work.discord.token_env",
    ]  # fmt: skip
    assert "DISCORD_BOT_TOKEN is the bot of channels.discord" in faults[2]


def test_the_most_specific_table_says_when_a_conversation_begins_anew(write) -> None:
    config = load_config(
        write(
            """
[heartbeat]
user_timezone = "Europe/Berlin"
[session.reset]
daily_at = "04:00"
[session.reset.group]
idle_minutes = 30
[session.reset.thread]
never = true
[agents.coder.reset]
never = true
[agents.coder.reset.thread]
idle_minutes = 5
"""
        ),
        {"HOLDFAST_IDENTITIES_ALICE": "slack:U1, discord:42"},
    )
    assert config.reset_policy("main", "direct") == ResetPolicy("04:00", "Europe/Berlin")
    assert config.reset_policy("main", "group") == ResetPolicy("04:00", "Europe/Berlin", 1800)
    assert config.reset_policy("main", "thread").is_never
    assert config.reset_policy("main", "machine").is_never
    assert config.reset_policy("coder", "group").is_never
    assert config.reset_policy("coder", "thread") == ResetPolicy(None, "Europe/Berlin", 300)
    assert config.routing().identities == {"alice": ("slack:U1", "discord:42")}


def test_bindings_that_cannot_decide_are_faults(write) -> None:
    file = write('[bindings.one]\nagent = "nobody"\nchannel = "slack"\n[identities]\neve = []\n')
    assert [fault.split(":")[0] for fault in faults_of(file)] == ["bindings.one.agent", "identities.eve"]


def test_what_may_be_spawned_follows_from_the_file_and_its_agents(write) -> None:
    limits = load_config(
        write(
            """
[models]
default = "openai/gpt-5"
fallbacks = ["openai/gpt-4"]
[agents.writer]
model = "anthropic/claude"
[subagents]
depth_max = 2
model = "openai/small"
models = ["openai/large"]
agents = ["writer"]
timeout_s = 60
"""
        ),
        {},
    ).spawn_limits()
    assert (limits.depth_max, limits.timeout_s, limits.agents, limits.model) == (2, 60, ("writer",), "openai/small")
    assert set(limits.models or ()) == {
        "openai/gpt-5", "openai/gpt-4", "anthropic/claude", "openai/small", "openai/large",
    }  # fmt: skip
    usual = Config().spawn_limits()
    assert (usual.depth_max, usual.per_session_max, usual.per_turn_max, usual.timeout_s) == (1, 5, 10, 3600)


def test_a_sub_agents_session_gets_no_heartbeat(write) -> None:
    path = write('[heartbeat]\nevery = "30m"\nsession = "agent:main:subagent:0123"\n')
    assert "sub-agent" in str(faults_of(path))


def test_a_fault_between_two_variables_names_no_file() -> None:
    [fault] = faults_of(None, {"HOLDFAST_TURN_BEAT_S": "10", "HOLDFAST_TURN_BEAT_TERM_S": "12"})
    assert fault.startswith("turn: beat_term_s (12) must be at least 3")
    assert "None" not in fault
