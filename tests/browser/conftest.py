"""A page of the demo in headless Chromium; every request that it makes is to the demo's own server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
]  # fmt: skip
OWN = ("data:", "blob:", "about:")
SLOW = 90_000  # milliseconds: the machine may be busy


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    """The browser; skipped where there is none, but where CI=true, which promises one."""
    missing = None if CHROMIUM else "there is no chromium (Debian: apt-get install chromium)"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed (pip install 'guided[browser]')"
    if missing and os.environ.get("CI", "").lower() == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS, env={
            **os.environ, "HOME": str(profile),
        })  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, served) -> Iterator[Callable]:
    """open_page(tab=None, **options) -> a playwright page in a context of its own, as of another person.

    Options are those of a browser context (viewport, locale). When the test ends, it fails if a page asked another host
    for anything or an error was thrown in a page.
    """
    contexts, outside, errors = [], [], []

    def look(request) -> None:
        if not request.url.startswith((served.url, *OWN)):
            outside.append(request.url)

    def open_(tab: str | None = None, **options):
        options = {"viewport": {"width": 1200, "height": 1000}, "locale": "en-US", **options}
        context = chromium.new_context(**options)
        context.set_default_timeout(SLOW)
        contexts.append(context)
        page = context.new_page()
        page.on("request", look)
        page.on("websocket", look)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served.url)
        page.wait_for_selector("#generate-go")
        if tab:
            page.get_by_role("tab", name=tab, exact=True).click()
        return page

    yield open_
    for context in contexts:
        context.close()
    assert outside == [], "the page asked other hosts"
    assert errors == [], "errors were thrown in the page"


@pytest.fixture
def page(open_page):
    """The page as it is first seen: the Generate tab, in English, on a wide screen."""
    return open_page()
