"""Broken input from a seed, for whatever reads what others have written: logs, transcripts, webhooks, settings.

A case is made of a sample by some edits: bytes flipped, cut, doubled, put in from elsewhere or from a list of awkward
things. The same seed makes the same case. What a reader may say is its own kind of refusal; anything else is a crash.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.config import read_config
from holdfast.errors import ConfigError, InputError
from holdfast.inbound import webhook
from holdfast.observe.incidents.as_text import report_text
from holdfast.observe.incidents.findings import findings_of
from holdfast.observe.incidents.log_events import event_of
from holdfast.observe.incidents.log_files import Source, lines_of_stream
from holdfast.observe.incidents.tally import Tally
from holdfast.session.lines import decode_entry, read_line, split_lines

Read = Callable[[bytes], object]
EDITS_MAX = 6
NOW_S = 1_800_000_000.0
AWKWARD = (
    b"", b"\0", b"\n", b"\r", b"\xff\xfe", b"\xed\xa0\x80", "\u2028".encode(), b"\\ud800", b"NaN", b"-1e999", b"1" * 99,
    b"[" * 200, b"]" * 200, b'{"a":' * 120, b'"', b"'", b"=", b"9999-99-99T99:99:99Z", b"-0001", b"\x1f\x8b\x08",
    b"%s%n", b"../../x", b"nan", b"inf", b"sha256=", b"v0=", b"t=,", b"true", b"null", b"{}", b"[[", b"a.b.c=1\n",
)  # fmt: skip
LOGS = (
    (b'2026-05-22T10:00:00.000Z WARNING holdfast.lane: [diagnostic] lane task error: lane=session:agent:main:main '
    b'durationMs=1 error="SessionTakeoverError: session file changed while embedded prompt lock was released: /a.j"\n'),
    (b'{"time":"2026-05-22T10:00:01.000Z","0":"[model-fallback/decision] decision=candidate_failed requested=a/b '
    b'candidate=a/b reason=timeout next=c/d detail=x"}\n'),
    b"__REALTIME_TIMESTAMP=1779444000000000\nMESSAGE=session.stuck: sessionKey=agent:main:main age=130s\n\n",
    b"May 22 10:00:02 host node[1]: Embedded agent failed before reply: All models failed (2): a/b: x | c/d: y\n",
)  # fmt: skip
LINES = (
    b'{"type":"session","version":3,"id":"s","timestamp":"2026-05-22T10:00:00.000Z","cwd":"/"}\n',
    (b'{"type":"message","id":"a","parentId":null,"timestamp":"2026-05-22T10:00:00.000Z","message":{"role":"user",'
    b'"content":[{"type":"text","text":"hello"}]},"holdfast":{"v":1,"store":"x","turn":"t","epoch":"1-a","writer":"w"}}\n'),
    b'{"type":"compaction","id":"b","parentId":"a","summary":"s","firstKeptEntryId":"a","tokensBefore":10}\n',
)  # fmt: skip
HEADERS = (
    b"x-hub-signature-256: sha256=" + b"a" * 64 + b"\nx-github-delivery: guid\nx-github-event: push\n\n{}",
    b"x-slack-signature: v0=" + b"b" * 64 + b'\nx-slack-request-timestamp: 1800000000\n\n{"event_id":"E","event":{}}',
    b"webhook-id: msg_1\nwebhook-timestamp: 1800000000\nwebhook-signature: v1,YWJj v1a,x\n\n{}",
    b"authorization: Bearer token\nidempotency-key: k\n\n[1]",
)
TOML = (
    b'[gateway]\nport = 1\n[gateway.tokens.x]\nscopes = ["read"]\nsha256 = "' + b"0" * 64 + b'"\n',
    b'[models]\ndefault = "demo/demo"\nfallbacks = ["openai/gpt-5"]\n[models.providers.x]\nbase_url = "http://x"\n',
    b'[cron.jobs.a]\nmessage = "m"\ncron = "30 7 * * MON-FRI"\ntimezone = "UTC"\n[heartbeat]\nevery = "30m"\n',
    b'[channels.slack]\ndm = "open"\nallow_from = ["U*"]\n[bindings.b]\nagent = "a"\nchannel = "slack"\n[prices."a/b"]',
    b'[hooks]\nenabled = true\n[hooks.mappings.h]\nscheme = "github"\nsecret_env = "S"\nmessage = "{{ a.b[0] }}"\n',
)


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and what it usually reads."""

    name: str
    samples: Sequence[bytes]
    read: Read


@dataclass(frozen=True, slots=True)
class Crash:
    """What a reader raised that it may not, for which input of which seed."""

    target: str
    seed: int
    case: bytes
    error: Exception


def read_log(data: bytes) -> None:
    """As `holdfast incidents report` does. Refuses by InputError."""
    tally = Tally()
    with suppress(InputError):
        lines = lines_of_stream(io.BytesIO(data), Source("fuzz", None, None), lambda _: None)
        tally.add(event for line in lines if (event := event_of(line)) is not None)
    list(report_text(findings_of(tally, [])))


def read_transcript(data: bytes) -> None:
    """Never raises for a line; what is an entry can be decoded."""
    lines, tail = split_lines(data)
    for raw in [*lines, tail]:
        line = read_line(raw)
        assert line.raw == raw
        if line.kind == "entry":
            decode_entry(raw)


def read_webhook(data: bytes) -> None:
    """No scheme believes it, whatever its headers are. Refuses by InputError."""
    head, _, body = data.partition(b"\n\n")
    pairs = [line.decode("latin-1").partition(": ") for line in head.split(b"\n")]
    headers = {name.lower(): value for name, _, value in pairs}
    for scheme in ("token", "github", "slack", "standard"):
        assert not webhook.is_signed(scheme, "a-secret-that-nobody-knows", headers, body, NOW_S)
        with suppress(InputError):
            webhook.delivery_key(scheme, headers, {"event_id": body.decode("latin-1"), "event": {"type": 1}})
        webhook.event_name(scheme, headers, [body])


def read_settings(data: bytes) -> None:
    """Refuses by ConfigError, with at least one fault."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        try:
            read_config(Path(file.name), {})
        except ConfigError as refused:
            if not refused.faults:
                raise AssertionError("refused without a reason") from refused


TARGETS = (
    Target("logs", LOGS, read_log),
    Target("transcripts", LINES, read_transcript),
    Target("webhooks", HEADERS, read_webhook),
    Target("configuration", TOML, read_settings),
)


def case_of(samples: Sequence[bytes], seed: int) -> bytes:
    """The case of a seed."""
    rng = random.Random(seed)  # the same each time, on purpose
    data = bytearray(b"".join(rng.choices(samples, k=rng.randint(1, 3))))
    for _ in range(rng.randint(1, EDITS_MAX)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((0, 1, 2, 8, 64)))
        match rng.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end]
            case 3:
                data[at:end] = rng.choice(AWKWARD)
            case 4:
                other = rng.choice(samples)
                start = rng.randrange(len(other))
                data[at:at] = other[start : start + rng.randrange(64)]
            case _:
                data[at:end] = rng.randbytes(end - at)
    return bytes(data)


def run(target: Target, seeds: Iterator[int] | range) -> Crash | None:
    """Read the cases of these seeds. Returns the first crash."""
    for seed in seeds:
        case = case_of(target.samples, seed)
        try:
            target.read(case)
        except Exception as error:  # noqa: BLE001  # whatever it is: that is what is looked for
            return Crash(target.name, seed, case, error)
    return None


def seeds_for(seconds: float, first: int = 0) -> Iterator[int]:
    """Seeds until so much CPU time of this process is spent."""
    end, seed = time.process_time() + seconds, first
    while time.process_time() < end:
        yield seed
        seed += 1
