"""`holdfast cron` and `holdfast heartbeat` as people and scripts meet them, without a gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import run


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: str, config: str | None = None) -> tuple[int, str, str]:
        options = ["--state", str(tmp_path / "state")]
        if config is not None:
            (tmp_path / "holdfast.toml").write_text(config)
            options += ["--config", str(tmp_path / "holdfast.toml")]
        code = run([*options, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_job_is_added_listed_paused_resumed_and_removed(say: Any) -> None:
    assert (
        say("cron", "add", "mail", "look at the mail", "--cron", "30 7 * * MON-FRI", "--timezone", "Europe/Berlin")[0]
        == 0
    )
    code, out, _ = say("cron", "list")
    assert code == 0
    assert out.startswith("mail\tcron 30 7 * * MON-FRI (Europe/Berlin)\tactive\t")
    assert "paused" in say("cron", "pause", "mail")[1]
    [job] = json.loads(say("cron", "list", "--json")[1])
    assert (job["state"], job["spec"]["job"]["timezone"]) == ("paused", "Europe/Berlin")
    assert "active; next at" in say("cron", "resume", "mail")[1]
    assert say("cron", "remove", "mail")[0] == 0
    assert say("cron", "list")[1] == ""
    code, _, err = say("cron", "pause", "mail")
    assert (code, "holdfast cron list" in err) == (2, True) or (code == 1 and "holdfast cron list" in err)


def test_what_is_wrong_with_a_job_is_said_all_at_once_and_nothing_is_added(say: Any) -> None:
    code, _, err = say("cron", "add", "a b", "x", "--every", "often", "--target", "nowhere", "--deliver", "webhook")
    assert code != 0
    assert all(word in err for word in ("name:", "schedule:", "target:", "url:")), err
    say("cron", "add", "mail", "x", "--every", "1h")
    code, _, err = say("cron", "add", "mail", "y", "--every", "1h")
    assert code != 0
    assert "holdfast cron remove mail" in err


def test_a_job_runs_by_hand_in_this_very_process_and_its_run_is_listed(say: Any) -> None:
    say("cron", "add", "mail", "look at the mail", "--every", "1h")
    code, out, err = say("cron", "run", "mail", "--wait", "30")
    assert code == 0, err
    assert "look at the mail" in out
    [run] = json.loads(say("cron", "runs", "mail", "--json")[1])
    assert (run["timer"], run["reason"]) == ("cron:mail", "manual")


def test_an_address_to_post_to_is_not_shown(say: Any) -> None:
    url = "https://example.org/hook?token=very-secret"
    say("cron", "add", "mail", "x", "--every", "1h", "--deliver", "webhook", "--url", url)
    shown = "".join("".join(say(*words)[1:]) for words in (("cron", "list"), ("cron", "list", "--json")))
    assert "mail" in shown
    assert "very-secret" not in shown


def test_a_job_may_be_bound_to_the_session_it_was_made_in(say: Any) -> None:
    assert say("cron", "add", "mail", "x", "--every", "1h", "--target", "current")[0] == 2
    say("cron", "add", "mail", "x", "--every", "1h", "--target", "current", "--session", "agent:main:test:group:g")
    [job] = json.loads(say("cron", "list", "--json")[1])
    assert job["spec"]["job"]["target"] == "session:agent:main:test:group:g"


def test_waking_a_heartbeat_that_there_is_not_says_where_to_look(say: Any) -> None:
    say("cron", "add", "mail", "x", "--every", "1h")
    code, _, err = say("heartbeat", "wake", "look")
    assert code != 0
    assert "holdfast heartbeat status" in err
    assert "every" in say("heartbeat", "status")[1]


GOOD = """
[heartbeat]
every = "30m"
active_start = "08:00"
active_end = "24:00"
user_timezone = "Europe/Berlin"

[cron.jobs.mail]
message = "Look at the mail."
cron = "30 7 * * MON-FRI"
"""


def test_the_configuration_of_timers_is_checked(say: Any) -> None:
    code, out, _ = say("config", "check", config=GOOD)
    assert (code, "warning" in out) == (0, False), out
    code, out, _ = say("config", "check", config=GOOD.replace('every = "30m"', 'every = "30m"\nisolated = false'))
    assert code == 0
    assert "heartbeat.isolated: false" in out
    assert "agent:main:main" in out
    wrong = GOOD.replace("30 7 * * MON-FRI", "61 7 * * *").replace("Europe/Berlin", "Mars/Olympus")
    code, _, err = say("config", "check", config=wrong)
    assert code == 78
    assert "heartbeat.user_timezone" in err
    code, _, err = say("config", "check", config=GOOD.replace("30 7 * * MON-FRI", "61 7 * * *"))
    assert code == 78
    assert "cron.jobs.mail.schedule" in err
