"""`holdfast-sweeper`: review one item, serve a repository, sweep it once; the gate and the creatures offline."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import holdfast
from holdfast_sweeper import __version__
from holdfast_sweeper.commands import ANSWERING, SAYS, Command
from holdfast_sweeper.demo import demo_review
from holdfast_sweeper.facts import Item
from holdfast_sweeper.github import API_URL, GitHub, GitHubError
from holdfast_sweeper.hatch import hatch as hatch_of
from holdfast_sweeper.hatch import svg_of
from holdfast_sweeper.labels import wanted_of
from holdfast_sweeper.model import HttpModel
from holdfast_sweeper.page import html_of
from holdfast_sweeper.plan import Work
from holdfast_sweeper.proof import judge
from holdfast_sweeper.render import report_of
from holdfast_sweeper.review import Review
from holdfast_sweeper.serve import serve as serve_forever
from holdfast_sweeper.serve import working
from holdfast_sweeper.settings import Settings, load
from holdfast_sweeper.sweeper import Sweeper
from holdfast_sweeper.text import on_a_terminal
from holdfast_sweeper.writing import Audit

TOKENS = ("GITHUB_TOKEN", "GITHUB_WEBHOOK_SECRET", "HOLDFAST_TOKEN", "SWEEPER_MODEL_TOKEN")


@dataclass(frozen=True, slots=True)
class Base:
    """What holds for all commands."""

    settings: Settings
    state: Path
    api_url: str


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="sweeper.toml; left out: nothing is written."
)
@click.option("--state", type=click.Path(path_type=Path), help="What is remembered (default: ~/.holdfast-sweeper).")
@click.option("--api-url", default=API_URL, show_default=True, help="Of GitHub, or of a GitHub Enterprise server.")
@click.option("--dry-run", is_flag=True, help="Write nothing to GitHub, whatever the settings allow.")
@click.version_option(__version__)
@click.pass_context
def main(context: click.Context, config: Path | None, state: Path | None, api_url: str, *, dry_run: bool) -> None:
    """Reviews of pull requests and issues: one comment for each, kept up to date.

    GITHUB_TOKEN reads and writes; GITHUB_WEBHOOK_SECRET lets webhooks in; SWEEPER_MODEL_TOKEN or HOLDFAST_TOKEN is for
    the model. Without settings nothing is written to GitHub.
    """
    try:
        settings = load(config)
    except ValueError as exc:
        raise click.ClickException(str(exc)) from None
    if dry_run:
        settings = settings.model_copy(update={"dry_run": True})
    context.obj = Base(settings, state or Path.home() / ".holdfast-sweeper", api_url)


@main.command()
@click.argument("item")
@click.option("--again", is_flag=True, help="Also if this very state was reviewed.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md, review.html and hatch.svg.")
@click.option("--json", "as_json", is_flag=True, help="Print the review as JSON.")
@click.pass_obj
def review(base: Base, item: str, out: Path | None, *, again: bool, as_json: bool) -> None:
    """Review OWNER/REPO#N (or its address) and print the report."""
    target = _item(item)

    async def work(sweeper: Sweeper) -> int:
        async with working(sweeper):
            command = Command("re-review") if again else None
            input_id = await sweeper.want(Work(target, "dispatch", command=command), None)
            view = await sweeper.hf.wait_input(input_id)
        if view.state != "answered":
            raise click.ClickException(view.detail or view.state)
        found = await sweeper.look(target)
        if found is None:
            click.echo(on_a_terminal(f"{target.text}: {view.answer}"), err=True)
            return 1
        labels = wanted_of(found)
        if out is not None:
            _write_review(out, found)
        told = {"item": target.text, "commit": found.facts.head, "model": found.model, "overall": found.rating.overall,
                "proof": found.rating.proof, "patch": found.rating.patch, "moves": found.rating.moves,
                "priority": found.priority, "labels": labels, "draft": found.draft.model_dump(mode="json")}  # fmt: skip
        click.echo(json.dumps(told, ensure_ascii=False) if as_json else on_a_terminal(report_of(found, labels)))
        return 0

    _run(base, work, only=target.repo)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8790, show_default=True, type=click.IntRange(1, 65_535))
@click.option("--every", default=3600.0, show_default=True, help="Seconds between looks at all open items; 0: never.")
@click.pass_obj
def serve(base: Base, host: str, port: int, every: float) -> None:
    """Take webhooks at /webhook and work them off, until interrupted."""
    secret = os.environ.get("GITHUB_WEBHOOK_SECRET", "")
    if not secret:
        raise click.ClickException("GITHUB_WEBHOOK_SECRET is not set: no webhook could be believed")
    if not base.settings.repositories:
        raise click.ClickException("the settings name no `repositories`: nothing would be heard")
    click.echo(f"webhooks at http://{host}:{port}/webhook (Ctrl-C ends it)", err=True)

    async def work(sweeper: Sweeper) -> int:
        await serve_forever(sweeper, secret, host, port, every)
        return 0

    _run(base, work)


@main.command()
@click.argument("repo")
@click.pass_obj
def sweep(base: Base, repo: str) -> None:
    """Look once at every open item of OWNER/REPO, and review what has changed."""

    async def work(sweeper: Sweeper) -> int:
        async with working(sweeper):
            count = await sweeper.sweep(repo)
            while waiting := [one for state in ("queued", "running") for one in await sweeper.hf.inputs(state=state)]:
                await sweeper.hf.wait_input(waiting[0].id)
        click.echo(f"{repo}: {count} open items looked at", err=True)
        return 0

    _run(base, work, only=repo)


@main.command()
@click.argument("item")
@click.argument("command", nargs=-1, required=True)
@click.pass_obj
def ask(base: Base, item: str, command: tuple[str, ...]) -> None:
    """Give a command for OWNER/REPO#N as the operator, such as `explain 2` or `automerge`."""
    from holdfast_sweeper.commands import find_command

    target, found = _item(item), find_command(f"/sweep {' '.join(command)}", "")
    if found is None or found.word == "unknown" or found.word in ANSWERING:
        words = ", ".join(one for one in SAYS if one != "unknown" and one not in ANSWERING)
        raise click.UsageError(f"commands are {words}; questions are answered by `holdfast approvals`")

    async def work(sweeper: Sweeper) -> int:
        async with working(sweeper):
            view = await sweeper.hf.wait_input(await sweeper.want(Work(target, "dispatch", command=found), None))
        click.echo(on_a_terminal(view.answer or view.detail or view.state))
        return 0 if view.state == "answered" else 1

    _run(base, work, only=target.repo)


@main.command()
@click.argument("what")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.option("--event", is_flag=True, help="WHAT is the event file of a workflow (GITHUB_EVENT_PATH).")
@click.pass_obj
def proof(base: Base, what: str, *, as_json: bool, event: bool) -> None:
    """The gate for proof of a real run: of a file with a pull request's text (- reads standard input), or OWNER/REPO#N.

    Exits with 0 if it passes, 1 if not. In a workflow: holdfast-sweeper proof --event "$GITHUB_EVENT_PATH".
    """
    verdict = judge(_pull_request(base, what, event=event))
    told = {"status": verdict.status, "pass": verdict.passes, "why": verdict.why, "missing": list(verdict.missing),
            "labels": list(verdict.labels)}  # fmt: skip
    click.echo(json.dumps(told) if as_json else on_a_terminal(f"{verdict.status}: {verdict.why}"))
    sys.exit(0 if verdict.passes else 1)


@main.command()
@click.argument("item")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the SVG here; otherwise it is printed."
)
def hatch(item: str, out: Path | None) -> None:
    """The creature of OWNER/REPO#N, always the same."""
    target = _item(item)
    click.echo(hatch_of(target).told, err=True)
    if out is None:
        click.echo(svg_of(target), nl=False)
    else:
        _write(out, svg_of(target))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md, review.html and hatch.svg.")
def demo(out: Path | None) -> None:
    """The review of a bundled, made-up pull request; no network, no model."""
    found = demo_review()
    if out is not None:
        _write_review(out, found)
    click.echo(report_of(found, wanted_of(found)))


def _write_review(out: Path, found: Review) -> None:
    labels = wanted_of(found)
    _write(out / "report.md", report_of(found, labels))
    _write(out / "review.html", html_of(found, labels, with_creature=True))
    _write(out / "hatch.svg", svg_of(found.facts.item))


def _pull_request(base: Base, what: str, *, event: bool) -> dict[str, Any]:
    if event:
        try:
            told = json.loads(Path(what).read_bytes())["pull_request"]
        except (OSError, ValueError, KeyError, TypeError):
            raise click.ClickException(f"{what} is no event of a pull request") from None
        return told if isinstance(told, dict) else {}
    if what == "-" or Path(what).is_file():
        text = sys.stdin.read() if what == "-" else Path(what).read_text(encoding="utf-8", errors="replace")
        return {"author_association": "NONE", "user": {"login": "somebody", "type": "User"}, "body": text}
    if "#" not in what and "/pull/" not in what:
        raise click.ClickException(f"there is no file {what!r}; or name a pull request as owner/repo#12")
    target = _item(what)

    async def read() -> Any:
        github = GitHub(os.environ.get("GITHUB_TOKEN", ""), api_url=base.api_url, wait_max_s=60)
        try:
            return await github.get(f"/repos/{target.repo}/pulls/{target.number}")
        finally:
            await github.close()

    try:
        told = asyncio.run(read())
    except GitHubError as exc:
        raise click.ClickException(str(exc)) from None
    return told if isinstance(told, dict) else {}


@asynccontextmanager
async def opened(base: Base, *, only: str = "") -> AsyncIterator[Sweeper]:
    """A sweeper, and everything that it needs, until left. only: the one repository that is looked at."""
    settings = base.settings
    if only:
        settings = settings.model_copy(update={"repositories": (only,)})
    token = os.environ.get("GITHUB_TOKEN", "")
    github = GitHub(token, api_url=base.api_url, tell=lambda line: click.echo(on_a_terminal(line), err=True))
    model_token = os.environ.get("SWEEPER_MODEL_TOKEN") or os.environ.get("HOLDFAST_TOKEN", "")
    model = HttpModel(settings.model, settings.model_name, model_token) if settings.model else None
    known = [os.environ[name] for name in TOKENS if os.environ.get(name)]
    try:
        async with holdfast.open(base.state / "sessions") as hf:
            yield Sweeper(hf, github, settings, audit=Audit(base.state / "audit.jsonl"), model=model, known=known)
    finally:
        await github.close()


def _run(base: Base, work: Callable[[Sweeper], Coroutine[Any, Any, int]], *, only: str = "") -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")

    async def run() -> int:
        async with opened(base, only=only) as sweeper:
            return await work(sweeper)

    try:
        sys.exit(asyncio.run(run()))
    except KeyboardInterrupt:
        click.echo("interrupted; what was begun goes on next time", err=True)
        sys.exit(130)
    except (GitHubError, holdfast.HoldfastError, ValueError, OSError) as exc:
        raise click.ClickException(on_a_terminal(str(exc))) from None


def _item(text: str) -> Item:
    try:
        return Item.of(text)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise click.ClickException(f"{path}: {exc.strerror}") from None
