"""`holdfast` as a person or a script uses it: real processes where processes matter, the demo model, no network."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.cli.main import run
from holdfast.cli.root import COMMANDS

SESSION = "agent:main:main"
HOLDFAST = [sys.executable, "-m", "holdfast"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, as an empty home, without variables of ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in [name for name in os.environ if name.startswith("HOLDFAST_")]:
        monkeypatch.delenv(variable)


@dataclass
class Said:
    """What a command said: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def holdfast(capsys: pytest.CaptureFixture[str]):
    """Runs a command in this process."""

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return call


@dataclass
class Up:
    """A gateway in a process of its own."""

    process: subprocess.Popen[str]
    state: Path

    def address(self) -> dict[str, object]:
        return json.loads((self.state / "gateway.json").read_text())

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A gateway on a free port, its state in ./state."""
    with gateway_in(tmp_path) as running:
        yield running


@contextmanager
def gateway_in(tmp_path: Path) -> Iterator[Up]:
    process = subprocess.Popen(
        [*HOLDFAST, "--state", "state", "up", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "ready at" in line:
            break
    yield Up(process, tmp_path / "state")
    process.kill()
    process.wait()
    process.stdout.close()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*HOLDFAST, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until_running(holdfast, session: str) -> str:
    """Wait until the newest input of a session runs; its id."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        newest = json.loads(holdfast("inputs", "--json", "--session", session).out)
        if newest and newest[0]["state"] == "running":
            return newest[0]["id"]
    raise AssertionError("it never ran")


def until(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


# ── starting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_costs_less_than_150_ms_of_processor_time() -> None:
    def cpu_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    spent = []
    for _ in range(3):
        before = cpu_s()
        said = subprocess.run([*HOLDFAST, "--version"], capture_output=True, text=True, check=True)
        spent.append(cpu_s() - before)
        assert said.stdout == "holdfast 0.1.0\n"
    assert min(spent) < 0.150


def test_every_command_explains_itself_and_takes_the_common_options(holdfast) -> None:
    listed = holdfast("--help").out
    for command in COMMANDS:
        assert f"  {command} " in listed
        said = holdfast(command, "--help")
        assert said.code == 0
        assert "--state DIR|URL" in said.out


def test_the_short_and_the_long_version_option_agree(holdfast) -> None:
    assert holdfast("-V").out == holdfast("--version").out == "holdfast 0.1.0\n"


# ── sending ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_is_answered_without_a_gateway(holdfast) -> None:
    said = holdfast("--state", "s", "send", SESSION, "hello")
    assert (said.code, said.out, said.err) == (0, "echo #1: hello\n", "")
    (view,) = json.loads(holdfast("--state", "s", "inputs", "--json").out)
    assert (view["state"], view["source"], view["answer"]) == ("answered", "http", "echo #1: hello")


def test_a_message_is_answered_by_the_running_gateway(holdfast, up: Up) -> None:
    said = holdfast("send", SESSION, "hello", "--json")
    shown = json.loads(said.out)
    assert (said.code, shown["state"], shown["answer"]) == (0, "answered", "echo #1: hello")
    assert shown["source"] == "http"
    assert up.end() == 0


def test_common_options_may_stand_before_or_after_the_command_and_the_later_one_wins(holdfast) -> None:
    assert holdfast("--state", "a", "send", SESSION, "x").code == 0
    assert holdfast("send", SESSION, "x", "--state", "b").code == 0
    assert holdfast("--state", "a", "send", SESSION, "y", "--state", "b").code == 0
    counts = [len(json.loads(holdfast("--state", state, "--json", "inputs").out)) for state in ("a", "b")]
    assert counts == [1, 2]


def test_without_waiting_a_message_is_stored_and_the_next_command_answers_it_first(holdfast) -> None:
    first = holdfast("--state", "s", "send", SESSION, "one", "--no-wait")
    assert first.code == 0
    assert first.out.startswith("in_")
    assert holdfast("--state", "s", "send", SESSION, "two").out == "echo #2: two\n"
    states = {view["id"]: view["state"] for view in json.loads(holdfast("--state", "s", "--json", "inputs").out)}
    assert states[first.out.strip()] == "answered"


def test_text_comes_from_standard_input_and_must_be_utf_8(tmp_path: Path) -> None:
    def send(data: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*HOLDFAST, "--state", "s", "send", SESSION, "-"], input=data, capture_output=True)

    assert send("Grüße\n🙂".encode()).stdout.decode() == "echo #1: Grüße\n🙂\n"
    wrong = send(b"\xff\xfe")
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert b"not UTF-8" in wrong.stderr


def test_an_empty_message_and_an_impossible_session_are_refused_in_one_line(holdfast) -> None:
    for arguments in ((SESSION, ""), ("", "hello")):
        said = holdfast("--state", "s", "send", *arguments)
        assert said.code == 1
        assert said.err.startswith("holdfast: ")
        assert said.err.count("\n") == 1


def test_the_same_key_is_the_same_message_with_and_without_the_gateway(holdfast, up: Up) -> None:
    through_gateway = json.loads(holdfast("send", SESSION, "once", "--key", "k", "--json").out)
    assert up.end() == 0
    without = json.loads(holdfast("send", SESSION, "once", "--key", "k", "--json").out)
    assert without["id"] == through_gateway["id"]
    other = holdfast("send", SESSION, "something else", "--key", "k")
    assert other.code == 1
    assert "was used before" in other.err


def test_the_same_key_is_the_same_message_before_and_after_the_first_gateway(holdfast, tmp_path: Path) -> None:
    before = json.loads(holdfast("--state", "state", "send", SESSION, "once", "--key", "k", "--json").out)
    assert (tmp_path / "state" / "token").stat().st_mode & 0o777 == 0o600
    with gateway_in(tmp_path):
        through_gateway = json.loads(holdfast("send", SESSION, "once", "--key", "k", "--json").out)
    assert through_gateway["id"] == before["id"]


def test_a_wait_that_is_too_short_says_so_and_the_message_goes_on(holdfast, up: Up) -> None:
    said = holdfast("send", SESSION, "/slow 3 hello", "--timeout", "0.3")
    assert said.code == 75
    assert "goes on" in said.err
    input_id = said.err.split()[1]
    answered = json.loads(holdfast("send", SESSION, "next", "--json").out)
    assert answered["answer"] == "echo #2: next"
    assert f"input {input_id} of {SESSION}: answered" in holdfast("why", input_id).out


def test_a_gateway_killed_while_it_answers_costs_nothing_but_time(holdfast, up: Up) -> None:
    sending = start("send", SESSION, "/slow 4 one two three four")
    until_running(holdfast, SESSION)
    up.process.send_signal(signal.SIGKILL)
    out, err = sending.communicate(timeout=60)
    assert (sending.returncode, out) == (0, "echo #1: /slow 4 one two three four\n"), err
    assert len(json.loads(holdfast("inputs", "--json").out)) == 1


def test_a_failed_answer_is_explained_on_standard_error(holdfast) -> None:
    said = holdfast("--state", "s", "send", SESSION, "/fail 401 please")
    assert said.code == 1
    assert "ended as failed" in said.err


class _Stranger(BaseHTTPRequestHandler):
    """Another program on the port that gateway.json names; writes down what it was told."""

    told: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.told.append(f"{self.path} {self.headers}")
        body = b'{"status": "ok", "store_id": "s_somebody_else"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing: the tests read standard error."""


def test_a_stranger_on_the_gateways_old_port_gets_neither_the_token_nor_the_message(holdfast, up: Up) -> None:
    address = up.address()
    token = (up.state / "token").read_text().strip()
    up.process.kill()
    up.process.wait()
    stranger = HTTPServer(("127.0.0.1", 0), _Stranger)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    (up.state / "gateway.json").write_text(json.dumps(address | {"port": stranger.server_address[1]}))
    try:
        assert holdfast("send", SESSION, "secret words").out == "echo #1: secret words\n"
    finally:
        stranger.shutdown()
        stranger.server_close()
    heard = "\n".join(_Stranger.told)
    assert "/healthz" in heard
    assert token not in heard
    assert "secret" not in heard


def test_a_token_kept_elsewhere_is_found_through_the_configuration(holdfast, tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('[gateway]\ntoken_file = "elsewhere.txt"\nport = 0\n')
    process = subprocess.Popen([*HOLDFAST, "--state", "s", "up"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if "ready at" in line:
                break
        shown = json.loads(holdfast("--state", "s", "send", SESSION, "hello", "--json").out)
        process.terminate()
        assert process.wait(30) == 0
    assert shown["source"] == "http"
    assert not (tmp_path / "s" / "token").exists()


# ── talking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_chat_answers_line_by_line_with_and_without_a_gateway(tmp_path: Path, up: Up) -> None:
    def chat(state: str) -> str:
        said = subprocess.run(
            [*HOLDFAST, "--state", state, "chat", SESSION],
            input="hello\n\n/think two\n",
            capture_output=True,
            text=True,
        )
        assert (said.returncode, said.stderr) == (0, "")
        return said.stdout

    assert chat("state") == chat("s") == "echo #1: hello\necho #2: /think two\n"


@pytest.mark.parametrize(
    ("arguments", "closed", "code"),
    [
        ("sessions", "<&- >&-", 0),
        ("send agent:main:main hello", ">&- 2>&-", 0),
        ("send agent:main:main -", "<&-", 1),
        ("chat", "<&-", 0),
        ("classify", "<&-", 0),
    ],
)
def test_closed_standard_streams_are_empty_ones(arguments: str, closed: str, code: int) -> None:
    line = f"{sys.executable} -m holdfast --state s {arguments} {closed}"
    subprocess.run([*HOLDFAST, "--state", "s", "send", SESSION, "first"], check=True, capture_output=True)
    said = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert (said.returncode, "Traceback" in said.stderr) == (code, False), said.stderr


def test_a_gateway_starts_with_closed_standard_streams_and_puts_no_file_in_their_place(tmp_path: Path) -> None:
    line = f"exec {sys.executable} -m holdfast --state state up --port 0 <&- >&- 2>&-"
    process = subprocess.Popen(["sh", "-c", line], cwd=tmp_path)
    try:
        until(lambda: (tmp_path / "state" / "gateway.json").exists() or process.poll() is not None)
        if sys.platform == "linux":
            assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("module", ["click", "holdfast.cli.root", "holdfast.cli.lists"])
def test_an_interrupt_while_the_program_is_loaded_ends_it_in_silence(module: str) -> None:
    interrupted_at = f"""
import sys
from holdfast.cli.main import main

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
main(["sessions"])
"""
    said = subprocess.run([sys.executable, "-c", interrupted_at], capture_output=True, text=True)
    assert (said.returncode, said.stdout, said.stderr.strip()) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that takes nothing")
def test_output_that_cannot_be_written_is_said_in_a_line() -> None:
    with open("/dev/full", "w") as full:
        said = subprocess.run(
            [*HOLDFAST, "--state", "s", "send", SESSION, "hello"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert said.returncode == 1
    assert said.stderr == "holdfast: standard output cannot be written: No space left on device\n"


def test_what_is_left_queued_without_a_gateway_is_not_said_to_go_on(holdfast) -> None:
    late = holdfast("--state", "s", "send", SESSION, "/slow 30 hello", "--timeout", "0.3")
    assert (late.code, late.out) == (75, "")
    assert "no gateway runs on this state" in late.err
    stored = holdfast("--state", "s", "send", SESSION, "later", "--no-wait")
    assert stored.code == 0
    assert stored.out.startswith("in_")
    assert "no gateway runs on this state" in stored.err
    assert holdfast("--state", "s", "stop", stored.out.strip()).out.endswith("cancelled\n")


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e300"])
def test_a_span_of_time_that_is_none_is_a_usage_error(holdfast, seconds: str) -> None:
    holdfast("--state", "s", "send", SESSION, "hello")
    assert holdfast("--state", "s", "send", SESSION, "hello", "--timeout", seconds).code == 2
    assert holdfast("--state", "s", "model", "pin", SESSION, "demo/demo", "--for", seconds).code == 2


def test_a_lane_is_called_by_a_name(holdfast) -> None:
    for lane in ("", "a b", "a\nb", "a" * 65):
        said = holdfast("--state", "s", "send", SESSION, "hello", "--lane", lane)
        assert (said.code, said.err.startswith("holdfast: lane: ")) == (1, True)


def test_stop_says_what_it_takes(holdfast) -> None:
    holdfast("--state", "s", "send", SESSION, "hello")
    assert "`holdfast inputs` lists them" in holdfast("--state", "s", "stop", SESSION).err
    assert "`holdfast turns` lists them" in holdfast("--state", "s", "stop", "turn_none").err


def test_chat_tells_how_a_line_ended_that_was_not_answered() -> None:
    said = subprocess.run(
        [*HOLDFAST, "--state", "s", "chat"], input="/fail cut one\nhello\n", capture_output=True, text=True
    )
    assert said.returncode == 0
    assert "ended as failed" in said.stderr
    assert said.stdout.endswith("echo #2: hello\n")


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_looking_at_a_state_that_is_not_there_does_not_make_it(holdfast, tmp_path: Path) -> None:
    for command in ("sessions", "turns", "inputs", "outbox", "why x", "stop in_x", f"transcript {SESSION}"):
        said = holdfast("--state", "nowhere", *command.split())
        assert (said.code, said.out) == (1, "")
        assert said.err.startswith("holdfast: no state at nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_the_state_is_looked_for_where_the_documentation_says(
    holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state_in_use() -> str:
        return holdfast("sessions").err.split("no state at ")[1].split(":")[0]

    assert state_in_use() == str(tmp_path / "home" / ".holdfast")
    monkeypatch.setenv("HOLDFAST_STATE", "from-variable")
    assert state_in_use() == "from-variable"
    monkeypatch.delenv("HOLDFAST_STATE")
    assert holdfast("--state", "state", "send", SESSION, "hello").code == 0
    assert SESSION in holdfast("sessions").out


def test_lists_show_the_same_as_text_and_as_json(holdfast) -> None:
    holdfast("--state", "s", "send", SESSION, "hello")
    for command, field in (("sessions", "key"), ("inputs", "id"), ("turns", "id")):
        views = json.loads(holdfast("--state", "s", command, "--json").out)
        rows = holdfast("--state", "s", command).out.splitlines()
        assert [row.split("\t")[0] for row in rows] == [view[field] for view in views]
        assert len(views) == 1
    assert holdfast("--state", "s", "outbox", "--json").out == "[]\n"


def test_a_state_that_no_input_can_have_is_a_usage_error_that_lists_those_there_are(holdfast) -> None:
    holdfast("--state", "s", "send", SESSION, "hello")
    assert len(holdfast("--state", "s", "inputs", "--in-state", "answered").out.splitlines()) == 1
    assert holdfast("--state", "s", "inputs", "--in-state", "failed").out == ""
    said = holdfast("--state", "s", "inputs", "--in-state", "done")
    assert said.code == 2
    assert "answered, cancelled" in said.err


def test_why_tells_the_story_of_an_input_a_turn_and_a_session(holdfast) -> None:
    shown = json.loads(holdfast("--state", "s", "send", SESSION, "hello", "--json").out)
    for target in (shown["id"], shown["turn_id"], SESSION):
        said = holdfast("--state", "s", "why", target)
        assert said.code == 0
        assert said.out.startswith(f"input {shown['id']} of {SESSION}: answered\n")
        assert "accepted" in said.out
    report = json.loads(holdfast("--state", "s", "why", shown["id"], "--json").out)
    assert report["state"] == "answered"
    assert all(line["evidence"] for line in report["lines"])
    assert holdfast("--state", "s", "why", "in_nothing").code == 1


def test_a_waiting_input_is_cancelled_at_once_and_a_running_one_when_its_owner_sees_it(holdfast, up: Up) -> None:
    sending = start("send", SESSION, "/slow 60 hello")
    running = until_running(holdfast, SESSION)
    waiting = holdfast("send", SESSION, "later", "--no-wait").out.strip()
    assert holdfast("stop", waiting).out == f"{waiting}: cancelled\n"
    assert json.loads(holdfast("stop", running, "--json").out) == {"id": running, "result": "requested"}
    out, err = sending.communicate(timeout=60)
    assert (sending.returncode, out) == (1, "")
    assert "ended as cancelled" in err
    assert holdfast("stop", running).out == f"{running}: already cancelled\n"


# ── transcripts ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def told(holdfast, tmp_path: Path) -> Path:
    """The transcript of a session in which one message was answered, and where others wrote since."""
    holdfast("--state", "s", "send", SESSION, "hello")
    (view,) = json.loads(holdfast("--state", "s", "sessions", "--json").out)
    path = Path(view["path"])
    with path.open("ab") as file:
        file.write(
            b'{"type":"label","id":"l1","parentId":null,"timestamp":"t","targetId":"x","label":"\\u001b[2Jhere"}\n'
        )
        file.write(
            b'{"type":"message","id":"m1","parentId":null,"timestamp":"t","message":{"role":"user","content":"\\ud83d"}}\n'
        )
        file.write(b"not json\n")
    return path


def test_a_transcript_shows_what_was_said_and_marks_what_is_beside_the_branch(holdfast, told: Path) -> None:
    shown = holdfast("--state", "s", "transcript", SESSION).out
    assert "hello" in shown
    assert "assistant (demo/demo)" in shown
    assert "\\ud83d" in shown  # half an emoji is shown as what it is
    assert shown.count("beside the active branch") == 2
    assert "label" not in shown
    assert "not json" not in shown


def test_a_transcript_shows_everything_on_request(holdfast, told: Path) -> None:
    shown = holdfast("--state", "s", "transcript", SESSION, "--all").out
    assert "── label" in shown
    assert shown.count("(for audit)") == 3
    assert "── unreadable:" in shown
    assert "not json" in shown


def test_a_transcript_comes_raw_byte_for_byte_and_as_json_line_by_line(holdfast, told: Path) -> None:
    raw = subprocess.run([*HOLDFAST, "--state", "s", "transcript", SESSION, "--raw"], capture_output=True, check=True)
    assert raw.stdout == told.read_bytes()
    lines = [json.loads(line) for line in holdfast("--state", "s", "transcript", SESSION, "--json").out.splitlines()]
    assert [line["kind"] for line in lines] == ["header", "entry", "entry", "entry", "entry", "malformed"]
    assert [line["visibility"] for line in lines] == ["audit", "model", "model", "audit", "model", "audit"]
    assert lines[-1]["text"] == "not json"


def test_a_followed_transcript_goes_on_with_what_is_written(holdfast, told: Path) -> None:
    following = start("--state", "s", "transcript", SESSION, "--follow", "--json")
    assert following.stdout is not None
    for _ in range(6):
        following.stdout.readline()
    with told.open("ab") as file:
        file.write(b'{"type":"session_info","id":"i1","parentId":"m1","timestamp":"t","name":"a title"}\n')
    assert json.loads(following.stdout.readline())["entry"]["name"] == "a title"
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    assert (following.returncode, err.strip()) == (130, "")


def test_a_reader_that_leaves_early_ends_the_command_quietly(holdfast, told: Path) -> None:
    with told.open("ab") as file:
        file.write(b'{"type":"session_info","id":"i1","parentId":"m1","timestamp":"t","name":"x"}\n' * 20_000)
    listing = start("--state", "s", "transcript", SESSION, "--raw")
    assert listing.stdout is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr is not None
    with listing.stderr:
        assert listing.stderr.read() == ""
    assert listing.wait(30) == 1


# ── configuration and ports ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_configuration_ends_every_command_that_needs_it_with_all_its_faults(holdfast, tmp_path: Path) -> None:
    (tmp_path / "holdfast.toml").write_text('[gateway]\nport = "x"\n[turn]\nstep_max = 1\n')
    for command in (["up"], ["send", SESSION, "hi"], ["config", "check"], ["config", "show"]):
        said = holdfast(*command)
        assert said.code == 78
        assert len(said.err.splitlines()) == 2
        assert "gateway.port" in said.err
        assert 'did you mean "turn.steps_max"?' in said.err
    report = holdfast("config", "check", "--json")
    assert report.code == 78
    assert len(json.loads(report.out)["faults"]) == 2
    assert not (tmp_path / "home").exists()  # nothing was made


def test_the_configuration_is_looked_for_where_the_documentation_says(
    holdfast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def port() -> tuple[int, str]:
        rows = json.loads(holdfast("--state", "s", "config", "show", "--json").out)
        return next((row["value"], row["source"]) for row in rows if row["key"] == "gateway.port")

    def write(path: Path, port: int) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[gateway]\nport = {port}\n")

    assert port() == (18890, "default")
    write(tmp_path / "s" / "holdfast.toml", 1)
    assert port() == (1, "file")
    write(tmp_path / "holdfast.toml", 2)
    assert port() == (2, "file")
    write(tmp_path / "named.toml", 3)
    monkeypatch.setenv("HOLDFAST_CONFIG", "named.toml")
    assert port() == (3, "file")
    monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", "4")
    assert port() == (4, "HOLDFAST_GATEWAY_PORT")
    said = holdfast("config", "check", "--config", "missing.toml")
    assert said.code == 78
    assert "cannot be read" in said.err


def test_config_check_reports_warnings_and_success(holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holdfast("config", "check").out == "no holdfast.toml, defaults and environment: good\n"
    monkeypatch.setenv("HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS", "0")
    said = holdfast("config", "check")
    assert said.code == 0
    assert said.out.startswith("warning: HOLDFAST_SESSION_WRITE_LOCK_ACQUIRE_TIMEOUT_MS: 0 is not a time to wait")


def test_the_schema_is_json_schema(holdfast) -> None:
    schema = json.loads(holdfast("config", "schema").out)
    assert schema["$defs"]["GatewayConfig"]["properties"]["port"]["default"] == 18890


def test_a_taken_port_ends_with_69_and_names_its_holder(holdfast, up: Up) -> None:
    port = str(up.address()["port"])
    said = subprocess.run([*HOLDFAST, "--state", "other", "up", "--port", port], capture_output=True, text=True)
    assert said.returncode == 69
    assert f"port {port} on 127.0.0.1 is taken by" in said.stderr
    assert str(up.process.pid) in said.stderr


def test_a_second_gateway_on_the_same_port_is_told_that_one_is_already_running_on_this_state(up: Up) -> None:
    port = str(up.address()["port"])
    said = subprocess.run([*HOLDFAST, "--state", str(up.state), "up", "--port", port], capture_output=True, text=True)
    assert said.returncode == 69
    assert f"already running on this state, {up.state} (pid {up.process.pid}," in said.stderr
    assert up.process.poll() is None


def test_what_is_looked_for_in_another_state_than_the_gateways_is_told_so(
    holdfast, up: Up, monkeypatch: pytest.MonkeyPatch
) -> None:
    holdfast("--state", "other", "send", SESSION, "hello")
    before = {path: path.read_bytes() for path in up.state.rglob("*.jsonl")}
    with socket.socket() as silent:  # a port that is ours, and where nobody listens
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", str(silent.getsockname()[1]))
        lost = holdfast("--state", "other", "recover", "agent:main:lost")
    assert lost.code == 1
    assert "no session 'agent:main:lost' in " in lost.err
    assert "another state" not in lost.err
    monkeypatch.setenv("HOLDFAST_GATEWAY_PORT", str(up.address()["port"]))
    for command in (["recover"], ["recover", "--dry-run"], ["transcript"], ["why"]):
        said = holdfast("--state", "other", *command, "agent:main:lost")
        assert said.code == 1
        assert "the gateway uses another state directory than other" in said.err
        assert f"pid {up.process.pid}" in said.err
    assert holdfast("--state", "other", "recover", SESSION).code == 0
    own = holdfast("--state", str(up.state), "recover", "agent:main:lost")
    assert (own.code, "another state" in own.err) == (1, False)
    assert {path: path.read_bytes() for path in up.state.rglob("*.jsonl")} == before


def test_a_port_that_another_program_holds_ends_with_69_too() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = subprocess.run(
            [*HOLDFAST, "--state", "s", "up", "--port", str(taken.getsockname()[1])], capture_output=True, text=True
        )
    assert said.returncode == 69
    assert "Traceback" not in said.stderr


def test_a_gateway_makes_no_folder_of_an_address(holdfast, tmp_path: Path) -> None:
    said = holdfast("--state", "postgres://me:secret@127.0.0.1:9/db", "up", "--port", "0")
    assert (said.code, said.err[:74]) == (
        1, "holdfast: the database postgres://me@127.0.0.1:9/db cannot be used now: co"
    )  # fmt: skip
    assert "secret" not in said.err
    other = holdfast("--state", "mysql://host/db", "up", "--port", "0")
    assert other.err == (
        "holdfast: mysql:// states are not supported by this release; give a folder or a postgres:// URL\n"
    )
    assert not (tmp_path / "postgres:").exists()
