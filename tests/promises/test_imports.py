"""What may import what: the core stays light, backends and the gateway are joined in one place, pure stays pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

PACKAGE = Path(holdfast.__file__).parent
HEAVY = {
    "agents",
    "aiohttp",
    "anthropic",
    "boto3",
    "click",
    "cronsim",
    "discord",
    "fastapi",
    "fastmcp",
    "google.genai",
    "httptools",
    "httpx",
    "langchain_core",
    "langgraph",
    "litellm",
    "mcp",
    "nanobot",
    "openai",
    "psycopg",
    "pydantic",
    "pydantic_ai",
    "rich",
    "slack_sdk",
    "starlette",
    "textual",
    "uvicorn",
    "uvloop",
    "websockets",
}
PURE = [
    "channel/discord_events.py",
    "channel/github_events.py",
    "channel/github_text.py",
    "channel/slack_events.py",
    "channel/slack_text.py",
    "channel/telegram_events.py",
    "channel/web_words.py",
    "outbox/chunks.py",
    "outbox/outbox.py",
    "lane/states.py",
    "lane/policy.py",
    "session/fence.py",
    "session/lock_file.py",
    "session/branch.py",
    "moving/conversation.py",
    "moving/openclaw_config.py",
    "moving/openclaw_session.py",
    "moving/toml_text.py",
    "session/lines.py",
    "session/visibility.py",
    "session/mending.py",
    "recovery/classify.py",
    "recovery/progress.py",
    "recovery/watching.py",
    "context/conversions.py",
    "context/memory.py",
    "context/plan.py",
    "context/system_prompt.py",
    "context/repair.py",
    "channel/gate.py",
    "inbound/chat.py",
    "inbound/freshness.py",
    "inbound/heartbeat.py",
    "inbound/heartbeat_file.py",
    "inbound/route.py",
    "inbound/schedule.py",
    "session/retention.py",
    "doctor/conversations.py",
    "doctor/facts.py",
    "doctor/finding.py",
    "doctor/ground.py",
    "doctor/lines.py",
    "doctor/pins.py",
    "doctor/place.py",
    "doctor/work.py",
    "model/failure.py",
    "model/facts.py",
    "model/failure_codes.py",
    "model/failure_rules.py",
    "model/caching.py",
    "model/cooldown.py",
    "model/google_cache.py",
    "model/policy.py",
    "model/usage.py",
    "model/walk.py",
    "model/words.py",
    "model/failure_texts.py",
]
DOING = {"asyncio", "pathlib", "select", "shutil", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time"}


def module_name(path: Path) -> str:
    """`holdfast.lane.states` for `…/holdfast/lane/states.py`."""
    parts = ("holdfast", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, in functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers_of(target: str) -> set[str]:
    """Modules outside `target` that import it or something below it."""
    return {
        module_name(path)
        for path in PACKAGE.rglob("*.py")
        if not module_name(path).startswith(target)
        and any(name == target or name.startswith(target + ".") for name in imports_of(path))
    }


def loaded_after(code: str) -> set[str]:
    """Names of the heavy packages that are loaded after `code` has run in a fresh interpreter."""
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split()) & HEAVY


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import holdfast") == set()


def test_using_the_library_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"""
import asyncio, holdfast
[getattr(holdfast, name) for name in holdfast.__all__]
async def main():
    async with holdfast.open({str(tmp_path / "state")!r}) as hf, hf.turn("agent:main:main") as turn:
        await turn.append(holdfast.user("hello"))
        async with turn.prompt_window() as window:
            window.finished("hi")
        await turn.append(holdfast.assistant("hi", model="demo/demo"))
asyncio.run(main())
"""
    assert loaded_after(code) == set()


def test_a_turn_without_servers_of_tools_loads_nothing_for_them(tmp_path: Path) -> None:
    code = f"""
import holdfast.gateway.app
from holdfast.cli.main import run
assert run(["send", "agent:main:main", "hello", "--state", {str(tmp_path / "state")!r}]) == 0
"""
    assert loaded_after(code) & {"fastmcp", "mcp"} == set()


def test_the_names_of_the_package_its_homes_and_what_type_checkers_see_are_the_same() -> None:
    source = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in source.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == holdfast._HOME_OF
    assert set(holdfast.__all__) == {*seen, "__version__"}
    assert all(getattr(holdfast, name) is not None for name in holdfast.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        holdfast.no_such_name  # noqa: B018


COPYING = {f"holdfast.store.copying.{one}" for one in ("carried", "database", "folder", "into_database", "into_folder")}
"""What goes from one backend to the other knows both."""


def test_a_backend_is_imported_only_where_parts_are_joined_and_by_the_testing_kit() -> None:
    others = {name for name in importers_of("holdfast.store.embedded") if not name.startswith("holdfast.testing")}
    assert others - COPYING <= {"holdfast.opening", "holdfast.gateway.app"}


def test_postgresql_is_imported_only_where_parts_are_joined_and_no_backend_knows_another() -> None:
    assert importers_of("holdfast.store.postgres") - COPYING == {"holdfast.opening"}
    assert importers_of("holdfast.store.copying") <= {"holdfast.opening"} | COPYING
    beside = importers_of("holdfast.store.embedded") - COPYING
    assert [name for name in beside if name.startswith("holdfast.store.")] == []


def test_the_gateway_is_imported_only_by_the_command_line_and_the_testing_kit() -> None:
    allowed = ("holdfast.cli", "holdfast.testing")
    assert [name for name in importers_of("holdfast.gateway") if not name.startswith(allowed)] == []


def test_the_integrations_are_imported_by_nobody_and_import_no_insides() -> None:
    assert importers_of("holdfast.integrations") == set()
    insides = ("holdfast.gateway", "holdfast.store.embedded", "holdfast.store.postgres", "holdfast.config")
    found = {name for path in (PACKAGE / "integrations").glob("*.py") for name in imports_of(path)}
    assert [name for name in found if name.startswith(insides)] == []


def test_the_configuration_is_not_known_to_the_core() -> None:
    allowed = ("holdfast.cli", "holdfast.gateway", "holdfast.testing")
    assert [name for name in importers_of("holdfast.config") if not name.startswith(allowed)] == []


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_neither_waits_nor_reads_nor_writes(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(PACKAGE / module)}
    assert imported & DOING == set()
    assert not any(name.startswith("holdfast.store.") for name in imports_of(PACKAGE / module))
