"""The pages in a real Chromium: opened, used and photographed during a storm; full of hostile texts; read by axe-core.

`make browser` runs them: Playwright and axe-core are no part of what `make test` needs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.served import Served
from tests.browser.scene import CALLED, HOSTILE, SESSIONS, hostile, storm

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

VIEWS = ("queue", "sessions", "models", "outbox", "timers", "approvals", "incidents")
WIDTHS = {"wide": (1280, 800), "phone": (390, 800)}
SHOT_BYTES_MAX = 200_000
SERIOUS = ("serious", "critical")


@dataclass
class Watched:
    """A page, and what must not happen on it."""

    page: Any
    home: str
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("dialog", self._dialog)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self._request(request.url))
        self.page.on("console", lambda message: self._console(message))

    async def _dialog(self, dialog: Any) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _request(self, url: str) -> None:
        if not url.startswith((f"{self.home}/", f"{self.home.replace('http', 'ws')}/", "data:")):
            self.wrong.append(f"request: {url}")

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.wrong.append(f"console: {message.text}")

    async def check(self) -> None:
        ran = await self.page.evaluate(f"typeof window.{CALLED}")
        assert ran == "undefined", "a hostile text was run"
        assert self.wrong == []


@asynccontextmanager
async def browser() -> AsyncIterator[Any]:
    """Chromium: HOLDFAST_CHROMIUM, or the one on the path; without it or Playwright nothing is run."""
    playwright = pytest.importorskip("playwright.async_api", reason="Playwright is not installed: make browser")
    path = os.environ.get("HOLDFAST_CHROMIUM") or shutil.which("chromium")
    if not path:
        pytest.skip("no Chromium on the path: name one with HOLDFAST_CHROMIUM")
    async with playwright.async_playwright() as driver:
        chromium = await driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        await chromium.close()


@asynccontextmanager
async def logged_in(chromium: Any, gateway: Served, size: str, scheme: str) -> AsyncIterator[Watched]:
    width, height = WIDTHS[size]
    context = await chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    context.set_default_timeout(60_000)
    watched = Watched(await context.new_page(), gateway.url)
    await watched.page.goto(f"{gateway.url}/")
    await watched.page.fill("#token", gateway.token)
    await watched.page.click("button")
    await watched.page.wait_for_url(f"{gateway.url}/")
    await live(watched)
    yield watched
    await watched.check()
    await context.close()


async def until(page: Any, what: str) -> None:
    """Wait for an expression to be true. Playwright's own way evaluates text in the page, which its policy refuses."""
    async with asyncio.timeout(120):
        while not await page.evaluate(what):  # noqa: ASYNC110  # the page has no event to wait for
            await asyncio.sleep(0.05)


async def live(watched: Watched) -> None:
    """The dashboard has heard from the gateway."""
    await until(watched.page, "document.getElementById('state').textContent === 'live'")


async def open_view(watched: Watched, name: str) -> None:
    """A list of the dashboard, once it has its rows."""
    await watched.page.goto(f"{watched.home}/#{name}")
    await watched.page.wait_for_selector("#list:not([hidden])")
    await until(watched.page, "/[0-9]+ of [0-9]+/.test(document.getElementById('list-more').textContent)")


async def photograph(watched: Watched, name: str, tmp_path: Path, part: str = "") -> None:
    """A picture of what is seen, or a part of it, small enough to stand in a repository: in HOLDFAST_SHOTS, or thrown
    away with the test.
    """
    folder = Path(os.environ.get("HOLDFAST_SHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    seen = watched.page.locator(part) if part else watched.page
    shot = await seen.screenshot(path=folder / f"{name}.png")
    assert 1000 < len(shot) < SHOT_BYTES_MAX, f"{name}: {len(shot)} bytes"


async def test_every_page_is_used_during_a_storm_of_200_sessions(tmp_path: Path) -> None:
    async with browser() as chromium, storm(tmp_path / "state") as gateway:
        async with logged_in(chromium, gateway, "wide", "light") as watched:
            page = watched.page
            await until(page, f"/{SESSIONS} sessions/.test(document.getElementById('span').textContent)")
            await page.focus("#lanes")
            for key in ("ArrowDown", "ArrowDown", "ArrowLeft", "+", "-", "l", "l"):
                await page.keyboard.press(key)
            assert "lane" in await page.inner_text("#chosen"), "the chosen turn is told of in words"
            await photograph(watched, "dashboard", tmp_path)
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#detail-body li")
            assert "accepted from" in await page.inner_text("#detail-body")
            await photograph(watched, "dashboard-why", tmp_path, "#detail")
            await page.keyboard.press("Escape")
            await page.fill("#filter", "chat-17")
            await until(page, "/ 11 sessions/.test(document.getElementById('span').textContent)")
            for name in VIEWS:
                await open_view(watched, name)
                await photograph(watched, f"dashboard-{name}", tmp_path)
            await open_view(watched, "incidents")
            await page.click("#list-kinds button")
            assert await page.get_attribute("#list-kinds button[aria-pressed=true]", "name")
            await page.focus("#list-body button.link")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#detail[open]")
            await page.keyboard.press("Escape")
            await open_view(watched, "sessions")
            await page.click("#list-body button.link")
            await page.wait_for_selector("#detail-body .line")
            await page.click("#detail-orders >> text=Raw lines")
            await page.wait_for_selector("#detail-body pre")
            await page.keyboard.press("Escape")
            await page.click("#chat")
            await page.wait_for_url(f"{gateway.url}/chat")
            await page.fill("#text", "from the browser")
            await page.keyboard.press("Enter")
            await until(page, "document.querySelectorAll('#messages li').length > 1")
            await photograph(watched, "chat", tmp_path)
            await page.goto(f"{gateway.url}/docs")
            assert "/api/incidents" in await page.inner_text("body")
            await photograph(watched, "docs", tmp_path)
        async with logged_in(chromium, gateway, "phone", "dark") as watched:
            await photograph(watched, "dashboard-phone", tmp_path)
            for name in VIEWS:
                await open_view(watched, name)
                wide = await watched.page.evaluate("document.documentElement.scrollWidth - innerWidth")
                assert wide <= 0, f"{name} is wider than a phone"
            await photograph(watched, "incidents-phone", tmp_path)
            await watched.page.click("#leave")
            await watched.page.wait_for_url("**/login**")
            await photograph(watched, "login-phone", tmp_path)


async def test_a_hundred_texts_that_would_be_scripts_stay_texts(tmp_path: Path) -> None:
    assert len(set(HOSTILE)) == 100
    async with browser() as chromium, hostile(tmp_path / "state") as gateway:
        for size, scheme in (("wide", "dark"), ("phone", "light")):
            async with logged_in(chromium, gateway, size, scheme) as watched:
                page = watched.page
                await page.focus("#lanes")
                for _ in range(12):
                    await page.keyboard.press("ArrowDown")
                for name in VIEWS:
                    await open_view(watched, name)
                await open_view(watched, "sessions")
                links = page.locator("#list-body tr td:first-child button.link")
                count = await links.count()
                assert count > 50
                for index in range(0, count, 1 if size == "wide" else 10):
                    await links.nth(index).click()
                    await page.wait_for_selector("#detail-body .line")
                    if index % 5 == 0:
                        await page.click("#detail-orders >> text=Raw lines")
                        await page.wait_for_selector("#detail-body pre")
                        await page.click("#detail-orders >> text=Why?")
                        await page.wait_for_selector("#detail-body li")
                    await page.keyboard.press("Escape")
                await watched.check()
                await page.goto(f"{gateway.url}/chat")
                await until(page, "document.getElementById('state').className.includes('on')")
                for text in HOSTILE[:: 5 if size == "wide" else 25]:
                    before = await page.locator("#messages li").count()
                    await page.fill("#text", text)
                    await page.keyboard.press("Enter")
                    await until(page, f"document.querySelectorAll('#messages li').length > {before}")
                assert (
                    await page.locator("#messages script, #messages img, #messages iframe, #messages svg").count() == 0
                )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(WIDTHS))
async def test_axe_finds_nothing_serious_on_any_page(tmp_path: Path, size: str, scheme: str) -> None:
    found: list[str] = []
    async with browser() as chromium, hostile(tmp_path / "state") as gateway:
        axe = _axe()

        async def read(watched: Watched, name: str) -> None:
            await watched.page.evaluate(axe)
            result = await watched.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            assert len(result["passes"]) > 5, "it has looked"
            found.extend(
                f"{name}: {one['impact']}: {one['id']}: {one['nodes'][0]['html'][:160]}"
                for one in result["violations"]
                if one["impact"] in SERIOUS
            )

        async with logged_in(chromium, gateway, size, scheme) as watched:
            page = watched.page
            await read(watched, "turns")
            await page.focus("#lanes")
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#detail-body li")
            await read(watched, "why")
            await page.keyboard.press("Escape")
            for name in VIEWS:
                await open_view(watched, name)
                await read(watched, name)
            await open_view(watched, "sessions")
            await page.locator("#list-body tr td:first-child button.link").first.click()
            await page.wait_for_selector("#detail-body .line")
            await read(watched, "conversation")
            await page.goto(f"{gateway.url}/chat")
            await until(page, "document.getElementById('state').className.includes('on')")
            await page.fill("#text", "hello")
            await page.keyboard.press("Enter")
            await until(page, "document.querySelectorAll('#messages li').length > 1")
            await read(watched, "chat")
            await page.goto(f"{gateway.url}/docs")
            await read(watched, "docs")
            await page.goto(f"{gateway.url}/login")
            await read(watched, "login (logged in)")
            await page.context.clear_cookies()
            await page.goto(f"{gateway.url}/login")
            await read(watched, "login")
    assert found == []


def _axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="axe-core is not installed: make browser")
    return (resources.files(package) / "axe.min.js").read_text("utf-8")
