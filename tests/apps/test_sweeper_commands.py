"""The command `holdfast-sweeper`, and what the manual shows of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from holdfast_sweeper.cli import main
from holdfast_sweeper.demo import demo_review
from holdfast_sweeper.labels import wanted_of
from holdfast_sweeper.page import html_of
from holdfast_sweeper.proof import FIELDS
from holdfast_sweeper.render import report_of
from holdfast_sweeper.settings import Settings, load
from tests.platforms.github_repository import REPO, TOKEN, Repository, repository_stand_in

ROOT = Path(__file__).parents[2]
PROOF = "## Real behavior proof\n" + "\n".join(f"- {one.names[0]}: stdout of it" for one in FIELDS)


def run(*arguments: str, given: str | None = None, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given, env={"GITHUB_TOKEN": None, **(env or {})})


def test_the_sample_in_the_manual_is_what_the_demo_prints(tmp_path: Path) -> None:
    shown = run("demo", "--out", str(tmp_path))
    assert shown.exit_code == 0
    sample = (ROOT / "docs/samples/sweeper-report.md").read_text(encoding="utf-8")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == sample
    assert shown.stdout.strip() == sample.strip()
    assert {one.name for one in tmp_path.iterdir()} == {"report.md", "review.html", "hatch.svg"}


def test_a_page_shows_strangers_words_as_text() -> None:
    made = demo_review()
    said = made.draft.model_copy(update={"summary": "<script>alert(1)</script>", "next_step": '"><img onerror=x>'})
    page = html_of(
        type(made)(made.facts, said, made.proof, made.rating, "<b>", made.at), {"<i>": '"'}, with_creature=True
    )
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>&lt;b&gt;" not in page
    assert "default-src 'none'" in page
    assert report_of(made, wanted_of(made)).count("**recommended**") == 1


@pytest.mark.parametrize(("text", "code", "status"), [(PROOF, 0, "passed"), ("I tried it.", 1, "missing")])
def test_the_gate_tells_by_its_exit_code(tmp_path: Path, text: str, code: int, status: str) -> None:
    (tmp_path / "body.md").write_text(text)
    event = {"pull_request": {"body": text, "author_association": "NONE", "user": {"login": "ann"}}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    for arguments in (["proof", str(tmp_path / "body.md")], ["proof", "--event", str(tmp_path / "event.json")]):
        shown = run(*arguments, "--json")
        assert (shown.exit_code, json.loads(shown.stdout)["status"]) == (code, status)
    assert run("proof", "-", given=text).exit_code == code


def test_what_cannot_be_is_told_with_the_way_out(tmp_path: Path) -> None:
    bad = tmp_path / "sweeper.toml"
    bad.write_text('may = ["everything"]\nmood = "fine"\n')
    for arguments, word in (
        (["review", "nonsense"], "owner/repo#12"),
        (["--config", str(bad), "hatch", "a/b#1"], "mood"),
        (["--config", str(tmp_path / "none.toml"), "hatch", "a/b#1"], "No such file"),
        (["ask", "a/b#1", "dance"], "commands are review"),
        (["--state", str(tmp_path), "serve"], "GITHUB_WEBHOOK_SECRET"),
    ):
        shown = run(*arguments)
        assert shown.exit_code != 0
        assert word in shown.output
    assert "<svg" in run("hatch", "octo/boat#12").output


def test_the_settings_in_the_manual_hold(tmp_path: Path) -> None:
    page = (ROOT / "docs/sweeper.md").read_text(encoding="utf-8")
    file = tmp_path / "sweeper.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    settings = load(file)
    assert settings.may == ("comment", "react", "labels", "status")
    assert settings == Settings(repositories=settings.repositories, may=settings.may, model=settings.model), "defaults"


@pytest.mark.parametrize("name", ["boat", "", "octo/boat/12", "octo/my boat", "https://github.com/octo/boat"])
def test_a_repository_that_is_none_is_told_when_the_settings_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "sweeper.toml").write_text(f"repositories = [{json.dumps(name)}]\n")
    with pytest.raises(ValueError, match="is no repository; write owner/repo"):
        load(tmp_path / "sweeper.toml")


async def test_one_item_is_reviewed_from_the_command_line_and_nothing_is_written(tmp_path: Path) -> None:
    import asyncio

    async with repository_stand_in() as github:
        github.pull(12, body=PROOF)
        arguments = ["--state", str(tmp_path / "state"), "--api-url", github.url, "review", f"{REPO}#12"]
        shown = await asyncio.to_thread(run, *arguments, "--out", str(tmp_path / "out"), env={"GITHUB_TOKEN": TOKEN})
        assert shown.exit_code == 0, shown.output
        assert "Overall: **platinum hermit**" in shown.output
        assert "review.html" in {one.name for one in (tmp_path / "out").iterdir()}
        again = await asyncio.to_thread(run, *arguments, "--again", "--json", env={"GITHUB_TOKEN": TOKEN})
        assert json.loads(again.stdout)["overall"] == "platinum hermit"
        assert writes(github) == []


def writes(github: Repository) -> list[str]:
    return [path for method, path, _ in github.asked if method != "GET" and path != "/graphql"]
