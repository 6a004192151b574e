"""Secrets are planted wherever one can enter, faults repeat all of them, and everything that leaves is read."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast import opening
from holdfast.cli.main import run
from holdfast.config.load import load_config
from holdfast.config.show import as_toml
from holdfast.errors import ChannelRefusedError
from holdfast.gateway import log
from holdfast.gateway.secret_values import passwords_in, secrets_of
from holdfast.inbound.event import InboundEvent
from holdfast.model.client import ToolSpec
from holdfast.model.errors import translate
from holdfast.testing.model import Reply, ScriptedModel
from holdfast.testing.platform import FakePlatform
from holdfast.testing.served import served
from holdfast.turn.tools import Tool, ToolCall

MAIN = "agent:main:main"
WORD = "canary"
ENV = {
    # By names that say nothing: only the configuration tells that these hold secrets.
    "MODEL_ACCESS": "canary-model-env-1", "MODEL_ACCESS_2": "canary-model-env-2", "BOT_A": "canary-slack-bot",
    "APP_A": "canary-slack-app", "SIGN_A": "canary-slack-signing", "BOT_B": "canary-discord-bot",
    "BOT_C": "canary-telegram-bot", "BOT_D": "canary-github-token", "HOOK_D": "canary-github-hook",
    "HOOK_E": "canary-hook-secret", "HOOKS_ALL": "canary-hooks-token-0123", "MCP_BEARER": "canary-mcp-bearer",
    "MCP_TEAM": "canary-mcp-header", "MCP_PROGRAM": "canary-mcp-program", "PHONE": "canary-phone-token-0123456789",
    # By names that do.
    "OPENAI_API_KEY": "canary-openai-key", "PGPASSWORD": "canary-pg-password",
    "HTTPS_PROXY": "http://me:canary-proxy-password@127.0.0.1:1",
}  # fmt: skip
TOML = """
[models.providers.written]
base_url = "http://user:canary-in-base-url@127.0.0.1:1/v1"
api_key = "canary-written-key"
[models.providers.named]
base_url = "http://127.0.0.1:1/v1"
api_key_env = "MODEL_ACCESS"
api_keys_file = "FOLDER/keys"
[channels.slack.slack]
bot_token_env = "BOT_A"
app_token_env = "APP_A"
signing_secret_env = "SIGN_A"
[channels.discord.discord]
token_env = "BOT_B"
[channels.telegram.telegram]
token_env = "BOT_C"
[channels.github.github]
token_env = "BOT_D"
webhook_secret_env = "HOOK_D"
[hooks]
enabled = true
token_env = "HOOKS_ALL"
[hooks.mappings.build]
secret_env = "HOOK_E"
[tools.servers.far]
url = "http://127.0.0.1:1/mcp"
token_env = "MCP_BEARER"
headers = { X-Team = "MCP_TEAM" }
[tools.servers.near]
command = ["/bin/false"]
env = ["MCP_PROGRAM"]
[gateway.tokens.phone]
scopes = ["read"]
token_env = "PHONE"
[gateway.tokens.tablet]
scopes = ["read"]
token_file = "FOLDER/tablet"
[cron.jobs.nightly]
every = "1h"
message = "report"
deliver = "webhook"
url = "https://user:canary-cron-password@example.test/services/canary-cron-path"
"""
DATABASE = "postgresql://user:canary%2Ddatabase@db.test/holdfast?sslpassword=canary-ssl-password"
ALL = [
    *ENV.values(), "canary-in-base-url", "canary-written-key", "canary-keys-file-1", "canary-tablet-token-0123456789",
    "canary-cron-password", "/services/canary-cron-path", "canary-database", "canary%2Ddatabase",
    "canary-ssl-password",
]  # fmt: skip
ALL.remove(ENV["HTTPS_PROXY"])
ALL.append("canary-proxy-password")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("keys", "canary-keys-file-1\n"), ("tablet", "canary-tablet-token-0123456789\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "holdfast.toml").write_text(TOML.replace("FOLDER", str(tmp_path)))
    (tmp_path / "holdfast.toml").chmod(0o600)
    return tmp_path


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All lines of all libraries, in the gateway's own form."""
    root, ours, written = logging.getLogger(), logging.getLogger("holdfast"), io.StringIO()
    before, levels = root.handlers[:], (root.level, ours.level)
    handler = logging.StreamHandler(written)
    handler.setFormatter(log.JsonFormatter())
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    yield written
    root.handlers[:] = before
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def all_words() -> str:
    return " ".join(ALL)


def test_every_secret_is_known_by_its_value_wherever_it_is_kept(folder: Path) -> None:
    known = secrets_of(load_config(folder / "holdfast.toml", ENV), ENV, DATABASE, "canary-own-token")
    assert [one for one in [*ALL, "canary-own-token"] if one not in known and f"{one}?" not in known] == []
    assert "/bin/false" not in known
    assert "/var/lib/holdfast" not in secrets_of(load_config(folder / "holdfast.toml", ENV), ENV, "/var/lib/holdfast")
    assert passwords_in("http://[") == []


@pytest.mark.parametrize("form", log.FORMATS)
def test_no_line_of_a_log_has_one_and_lines_stay_readable(folder: Path, form: str) -> None:
    known = secrets_of(load_config(folder / "holdfast.toml", ENV), ENV, DATABASE)
    written = io.StringIO()
    logger = logging.Logger("holdfast.trial")  # none of the process's own is to be touched
    handler = logging.StreamHandler(written)
    handler.setFormatter(log.JsonFormatter(known) if form == "json" else log.TextFormatter(known))
    logger.addHandler(handler)
    try:
        raise ChannelRefusedError(f"status 401 for {all_words()}")
    except ChannelRefusedError:
        logger.exception('it broke: said="%s" key=%s -----BEGIN PRIVATE KEY-----', all_words(), ALL[0])
    assert WORD not in written.getvalue().replace("test_canaries", "")
    if form == "json":
        line = json.loads(written.getvalue())
        assert line["level"] == "error"
        assert "traceback" in line


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_commands_tell_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    there = ["--config", str(folder / "holdfast.toml"), "--state", str(folder / "state")]
    asyncio.run(_make_state(folder / "state"))
    for command in ("config show --origin", "config check", "doctor", f"why {MAIN}", "channels", "cron list"):
        run([*there, *command.split(), *more])
        said = capsys.readouterr()
        assert WORD not in said.out + said.err, command
    run(["--state", DATABASE.replace("db.test", "127.0.0.1:1"), "sessions", *more])  # nobody listens there
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err
    assert WORD not in said.out + said.err


async def test_what_repeats_its_secret_in_a_fault_is_written_down_without_it(
    folder: Path, everything_logged: io.StringIO
) -> None:
    """A model, a tool, a channel and a server fail with every secret in what they say; then everything is read."""
    told = " ".join(one for one in ALL if "database" not in one and "ssl" not in one)  # this state is a folder
    config = load_config(folder / "holdfast.toml", ENV)
    names = ("slack", "discord", "telegram", "github")
    platforms = {name: FakePlatform(name) for name in names}
    for one in platforms.values():
        one.break_with(ChannelRefusedError(f"no: {told}", permanent=True))

    async def blurt(call: ToolCall) -> str:
        raise RuntimeError(f"the far side said {told}")

    model = ScriptedModel(
        Reply(calls=[("blurt", {"with": told})]), "said", translate(
            RuntimeError("401 for canary-model-env-1 at http://u:canary-in-base-url@x"), provider="demo", model="demo",
            secrets=["canary-model-env-1", "canary-in-base-url"],
        ),
        RuntimeError(told), *["again"] * 8,
    )  # fmt: skip
    tool = Tool(ToolSpec("blurt", "Fails.", {"type": "object"}), blurt, effect="read")
    async with (
        served(folder / "state", model=model, config=config, env=ENV, tools=[tool],
               adapters={name: one.adapter() for name, one in platforms.items()}) as gateway,
        httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, timeout=60) as client,
    ):  # fmt: skip
        everything = logging.getLogger().handlers[0].formatter
        assert isinstance(everything, log.TextFormatter)
        everything.redactor.learn(secrets_of(config, ENV, gateway.hf.state, gateway.token))
        read = everything_logged
        for _ in range(3):
            body = {"text": "go", "route": "telegram:me"}
            await client.post(f"/api/sessions/{MAIN}/messages", params={"wait": 1, "timeout": 60}, json=body)
        async with asyncio.timeout(60):
            while (await client.get("/api/overview")).json().get("undelivered", 0):  # noqa: ASYNC110  # asked from outside
                await asyncio.sleep(0.02)
        pages = [
            "/", "/login", "/metrics", "/openapi.json", "/docs", "/api/overview", "/api/sessions", "/api/inputs",
            "/api/turns", "/api/outbox", "/api/models", "/api/timers", "/api/incidents", "/api/timeline",
            "/api/approvals", "/api/config", "/api/usage", f"/api/why/{MAIN}", f"/api/sessions/{MAIN}",
            f"/api/sessions/{MAIN}/transcript?raw=1", "/v1/models", "/healthz", "/readyz",
        ]  # fmt: skip
        seen: dict[str, Any] = {path: (await client.get(path)).text for path in pages}
        saved = await asyncio.to_thread(opening.backup, gateway.hf.state, folder / "saved.tar.gz")
    with tarfile.open(saved.path) as archive:
        seen |= {f"backup {one.name}": _text(archive, one) for one in archive if one.isfile()}
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            seen[f"file {path}"] = path.read_bytes().decode("utf-8", "replace")
    seen["log"] = read.getvalue().replace("test_canaries", "")
    seen["config show"] = "".join(as_toml(one) for one in [_loaded(folder)])
    assert "[redacted]" in seen[f"/api/why/{MAIN}"] + seen["/api/outbox"]
    for kept in ("file", "backup"):  # the ledger, which is its owner's alone, knows where to post
        for where in [one for one in seen if one.startswith(kept) and "ledger.sqlite3" in one]:
            seen[where] = seen[where].replace("canary-cron-password@example.test/services/canary-cron-path", "")
    leaking = {where: text[max(0, text.find(WORD) - 200) : text.find(WORD) + 80]
               for where, text in seen.items() if WORD in text}  # fmt: skip
    assert leaking == {}, json.dumps(leaking)[-1500:]


async def _make_state(path: Path) -> None:
    async with opening.open(path) as hf:
        await hf.accept(InboundEvent(MAIN, {"content": "hello"}))


def _loaded(folder: Path) -> Any:
    from holdfast.config.load import read_config

    return read_config(folder / "holdfast.toml", ENV)


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    return file.read().decode("utf-8", "replace") if file is not None else ""
