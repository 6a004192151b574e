"""A gateway beside a live OpenClaw: messages wait for its lock file, and are answered after it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.faults.openclaw import openclaw
from tests.flow.test_gateway_process import START_S, started

BESIDE = {
    "HOLDFAST_SESSION_LOCK_PROTOCOL": "openclaw",
    "HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS": "200",
}
KEY = "agent:main:main"


async def test_a_message_waits_for_openclaw_and_is_answered_once_after_it(tmp_path: Path) -> None:
    async with started(tmp_path / "state", "--port", "0", env=BESIDE) as gateway, gateway.http() as http:
        first = await http.post(f"/api/sessions/{KEY}/messages", params={"wait": 1}, json={"text": "one"})
        assert first.json()["state"] == "answered", first.text
        [transcript] = (tmp_path / "state" / "sessions").glob("*/*.jsonl")
        with openclaw("hold", transcript, lines=1) as other:
            assert await asyncio.to_thread(other.hears) == "held"
            before = transcript.read_bytes()
            sent = await http.post(f"/api/sessions/{KEY}/messages", json={"text": "two"})
            assert sent.status_code == 202
            assert gateway.process.stderr is not None
            line = b""
            async for line in gateway.process.stderr:  # until it has waited as long as it may
                assert b"model-fallback" not in line
                if b"SessionWriteLockTimeoutError" in line or b"session file locked (timeout 200ms)" in line:
                    break
            assert b"lock file" in line
            assert f"pid={other.pid}".encode() in line
            assert transcript.read_bytes() == before
            other.goes_on()
            assert await asyncio.to_thread(other.hears) == "released"
        async with asyncio.timeout(START_S):
            while not (found := (await http.get(f"/api/inputs/{sent.json()['id']}")).json())["settled"]:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)
        assert found["state"] == "answered"
        assert found["answer"] == "echo #2: two"
        assert transcript.read_bytes().count(b"echo #2: two") == 1
        assert not transcript.with_name(f"{transcript.name}.lock").exists()
