"""Folders of other programs as those leave them: made up from their documented formats, one of each kind of thing."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

AT = "2026-05-22T10:00:00.000Z"
MS = 1_779_444_000_000


def line(kind: str, id: str | None, parent: str | None, **fields: Any) -> dict[str, Any]:
    place = {} if id is None else {"id": id, "parentId": parent, "timestamp": AT}
    return {"type": kind, **place, **fields}


def header(version: int | None = 3, id: str = "sess") -> dict[str, Any]:
    return {
        "type": "session",
        **({} if version is None else {"version": version}),
        "id": id,
        "timestamp": AT,
        "cwd": "/w",
    }


def user(id: str | None, parent: str | None, text: str) -> dict[str, Any]:
    return line("message", id, parent, message={"role": "user", "content": text, "timestamp": MS})


def answer(id: str | None, parent: str | None, text: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"type": "text", "text": text}], "api": "anthropic-messages",
               "provider": "anthropic", "model": "claude", "usage": {}, "stopReason": "stop",
               "timestamp": MS, **more}  # fmt: skip
    return line("message", id, parent, message=message)


def mirror(id: str, parent: str | None, text: str) -> dict[str, Any]:
    return answer(id, parent, text, api="openai-responses", provider="openclaw", model="delivery-mirror")


def write(path: Path, lines: list[dict[str, Any] | bytes], *, end: bytes = b"\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raws = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
    path.write_bytes(b"\n".join(raws) + end)


def append(path: Path, one: dict[str, Any]) -> None:
    with open(path, "ab") as file:
        file.write(json.dumps(one).encode() + b"\n")


def openclaw(root: Path) -> Path:
    """A state directory of 2026.5: formats 1 to 3, a thread, an archive, a copy, bad lines, pins, JSON5."""
    folder = root / "agents" / "main" / "sessions"
    write(folder / "s-main.jsonl", [
        header(3, "s-main"), user("aaaa0001", None, "hello"), answer("aaaa0002", "aaaa0001", "hi"),
        mirror("aaaa0003", "aaaa0002", "hi"), b'{"type":"message","id":"torn', user("aaaa0004", "aaaa0003", "more"),
        answer("aaaa0005", "aaaa0004", "so be it"),
    ])  # fmt: skip
    write(folder / "s-old.jsonl", [
        header(None, "s-old"), user(None, None, "first"), answer(None, None, "second"),
        {"type": "message", "message": {"role": "hookMessage", "customType": "x", "content": "hook", "display": True}},
    ])  # fmt: skip
    write(folder / "s-group-topic-7.jsonl", [header(2, "s-group"), user("bbbb0001", None, "in a thread"),
                                             answer("bbbb0002", "bbbb0001", "there")])  # fmt: skip
    write(folder / "s-old.checkpoint.1234.jsonl", [header(3, "s-old")])
    write(
        folder / "s-was.jsonl.reset.2026-05-01T10-00-00.000Z", [header(3, "s-was"), user("cccc0001", None, "long ago")]
    )
    write(
        folder / "s-gone.jsonl.deleted.2026-05-02T10-00-00.000Z",
        [header(3, "s-gone"), user("dddd0001", None, "forget")],
    )
    write(folder / "s-nameless.jsonl", [header(3, "s-nameless"), user("eeee0001", None, "whose am I")], end=b"")
    store = {
        "agent:main:main": {
            "sessionId": "s-main", "updatedAt": MS, "displayName": "At home", "providerOverride": "anthropic",
            "modelOverride": "claude-opus-4-6", "modelOverrideSource": "user", "queueMode": "collect",
            "queueDebounceMs": 900, "thinkingLevel": "high", "inputTokens": 12,
        },
        "agent:main:telegram:group:-100:thread:7": {
            "sessionId": "s-group", "updatedAt": MS, "sessionFile": "/elsewhere/s-group-topic-7.jsonl",
            "providerOverride": "openai", "modelOverride": "gpt-5", "modelOverrideSource": "auto",
            "modelOverrideFallbackOriginProvider": "anthropic", "modelOverrideFallbackOriginModel": "claude",
        },
        "agent:main:discord:direct:42": {"sessionId": "s-old", "updatedAt": MS},
        "agent:main:slack:direct:U1": {"sessionId": "s-never", "updatedAt": MS},
    }  # fmt: skip
    (folder / "sessions.json").write_text(json.dumps(store, indent=2))
    (root / "openclaw.json").write_text(CONFIG)
    return root


CONFIG = """// comments, a trailing comma and single quotes: JSON5
{
  agents: {
    defaults: {
      workspace: '/data/agent',
      model: { primary: 'anthropic/claude-sonnet-4-6', fallbacks: ['openai/gpt-5.4'] },
      heartbeat: { every: '30m', target: 'telegram', to: '1234', ackMaxChars: 200 },
      maxConcurrent: 3,
      thinkingDefault: 'low',
    },
    list: [{ id: 'main', default: true }, { id: 'quick', model: 'openai/gpt-5.4-mini', skills: [] }],
  },
  models: { providers: { proxy: { baseUrl: 'http://localhost:4000/v1', apiKey: 'sk-secret-1', api: 'openai-responses',
    models: [{ id: 'llama', contextWindow: 128000, cost: { input: 1, output: 2, cacheRead: 0, cacheWrite: 0 } }] } } },
  session: { dmScope: 'per-channel-peer', reset: { mode: 'daily', atHour: 4 }, writeLock: { staleMs: 900000 } },
  messages: { queue: { mode: 'followup', cap: 30, drop: 'old', byChannel: { discord: 'collect' } }, ackReaction: '👀' },
  channels: {
    telegram: { enabled: true, botToken: '123:secret-2', dmPolicy: 'allowlist', allowFrom: [123456789],
      groupPolicy: 'allowlist', groups: { '-100': { requireMention: true } } },
    whatsapp: { allowFrom: ['+15555550123'] },
  },
  gateway: { port: 18789, auth: { token: 'secret-3' } },
}
"""


def openclaw_database(root: Path) -> Path:
    """The same of a newer release: sessions in a database, with a line that moves the leaf back."""
    file = root / "agents" / "main" / "agent" / "openclaw-agent.sqlite"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as db:
        db.executescript(_TABLES)
        db.execute("insert into session_nodes values('agent:main:main', 'w2', ?)", (json.dumps({
            "sessionId": "w2", "updatedAt": MS, "displayName": "Newer", "providerOverride": "openai",
            "modelOverride": "gpt-5",
        }),))  # fmt: skip
        db.execute("insert into session_windows values('w1', 'agent:main:main', 1), ('w2', 'agent:main:main', 2)")
        events = {
            "w1": [header(3, "w1"), user("f001", None, "before"), answer("f002", "f001", "the reset")],
            "w2": [header(3, "w2"), user("f101", None, "kept"), answer("f102", "f101", "yes"),
                   user("f103", "f102", "taken back"), answer("f104", "f103", "oh"),
                   {"type": "leaf", "id": "f105", "parentId": "f104", "timestamp": AT, "targetId": "f102"}],
        }  # fmt: skip
        for window, lines in events.items():
            for seq, one in enumerate(lines):
                db.execute("insert into transcript_events values(?, ?, ?, null, null)", (window, seq, json.dumps(one)))
        db.execute("insert into session_pending_inputs values('i1')")
        db.commit()
    return root


_TABLES = """
pragma journal_mode=wal;
create table session_nodes(session_key text primary key, current_session_id text not null, entry_json text not null);
create table session_windows(session_id text primary key, session_key text not null, created_at integer not null);
create table transcript_events(session_id text, seq integer, event_json text, event_zstd blob, event_utf8_bytes integer,
  primary key(session_id, seq));
create table session_pending_inputs(input_id text primary key);
"""


def nanobot(root: Path) -> Path:
    write(root / "sessions" / "dGVsZWdyYW06NDI.jsonl", [
        {"_type": "metadata", "key": "telegram:42", "created_at": AT, "metadata": {"title": "Trip"}},
        {"role": "user", "content": "what time is it", "timestamp": "2026-05-22T10:00:00"},
        {"role": "assistant", "content": None, "timestamp": "2026-05-22T10:00:01", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "name": "clock", "content": "noon"},
        {"role": "assistant", "content": "noon"},
    ])  # fmt: skip
    return root


def hermes(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(root / "state.db")) as db:
        db.executescript("""
create table sessions(id text primary key, source text, session_key text, display_name text, started_at real);
create table messages(id integer primary key, session_id text, role text, content text, tool_call_id text,
  tool_calls text, tool_name text, timestamp real, active integer, compacted integer);
""")
        db.execute("insert into sessions values('h1', 'telegram', 'agent:main:telegram:dm:7', 'Old friend', 1.0)")
        rows = [("user", "long ago", 0, 1), ("assistant", "indeed", 0, 1), ("user", "summary: we met", 1, 0),
                ("user", "oops", 0, 0), ("user", "and now?", 1, 0), ("assistant", "now it goes on", 1, 0)]  # fmt: skip
        for number, (role, content, active, compacted) in enumerate(rows, 1):
            db.execute("insert into messages values(?, 'h1', ?, ?, null, null, null, ?, ?, ?)",
                       (number, role, content, 1_779_444_000.0 + number, active, compacted))  # fmt: skip
        db.commit()
    return root


def fingerprint(root: Path) -> dict[str, tuple[int, int, int, int, str]]:
    """Size, all three times and digest of each file, and the times of each folder; made without touching them."""
    found: dict[str, tuple[int, int, int, int, str]] = {}
    for path in sorted([root, *root.rglob("*")]):
        at = os.stat(path)
        digest = ""
        if path.is_file():
            fd = os.open(path, os.O_RDONLY | os.O_NOATIME)
            with open(fd, "rb") as file:
                digest = hashlib.sha256(file.read()).hexdigest()
        found[str(path.relative_to(root))] = (
            at.st_size,
            at.st_mtime_ns,
            at.st_ctime_ns,
            at.st_atime_ns if digest else 0,
            digest,
        )
    return found
