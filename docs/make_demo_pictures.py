"""The screenshots of the demo in the README and docs/demo.md: python docs/make_demo_pictures.py [NAME ...].

Serves the demo with the embedded models, presses what a person would press, and writes docs/images/demo-NAME.png;
without names all of them. Needs Debian's chromium, and fonts-noto-cjk for the Korean one.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from demos.app import serve
from demos.shelf import Shelf
from demos.tabs import compare as compare_tab
from demos.tabs import edit as edit_tab
from demos.tabs import explore as explore_tab
from demos.tabs import generate as generate_tab
from demos.tabs import segment as segment_tab
from demos.tabs import text as text_tab

IMAGES = Path(__file__).parent / "images"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--force-color-profile=srgb"]
WIDE, PHONE = {"width": 1180, "height": 800}, {"width": 390, "height": 800}
WAIT = 600_000  # milliseconds, for a busy machine
COLOURS = 128  # of a palette: screenshots of a few hundred kilobytes become less than a hundred


def generate(page: Page) -> None:
    page.click("#generate-go")
    page.wait_for_selector("#generate-result .gallery-item img")
    page.fill("#generate-guidance input[type=number]", "6")
    page.keyboard.press("Tab")
    page.click("#generate-go")
    page.wait_for_selector("#generate-compared figure")


def live(page: Page) -> None:
    page.click("#generate-go")
    page.wait_for_function("/Step ([5-9]|1.) of/.test(document.querySelector('#generate-live').innerText)")


def text(page: Page) -> None:
    page.click("#text-go")
    page.wait_for_selector("#text-result .gallery-item img")


def compare(page: Page) -> None:
    page.click("#compare-go")
    page.wait_for_function("document.querySelectorAll('#compare-table img').length == 16")


def edit(page: Page) -> None:
    page.get_by_role("tab", name="Inpaint", exact=True).click()
    page.click("#inpaint-canvas button[aria-label='Brush']")
    page.keyboard.press("Escape")
    page.wait_for_timeout(1500)
    box = page.locator("#inpaint-canvas canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for down in (25, 55):  # over the mouth
        page.mouse.move(x - 60, y + down)
        page.mouse.down()
        page.mouse.move(x + 60, y + down, steps=8)
        page.mouse.up()
    page.click("#inpaint-go")
    page.wait_for_selector("#inpaint-result .gallery-item img")


def segment(page: Page) -> None:
    page.click("#segment-go")
    page.wait_for_selector("#segment-strip img")


def explore(page: Page) -> None:
    page.locator("button[role=tab]:visible", has_text="3 ").click()
    page.click("#explore-denoiser-go")
    page.wait_for_selector("#explore-belief svg.marks")


LANGUAGES = ("en-US", "ko-KR")  # in the order of a tab's words
SHOTS = {  # name: (tab, window, language, what is pressed)
    "generate": (generate_tab, WIDE, 0, generate),
    "phone": (generate_tab, PHONE, 1, live),
    "text": (text_tab, WIDE, 0, text),
    "edit": (edit_tab, WIDE, 0, edit),
    "segment": (segment_tab, WIDE, 0, segment),
    "explore": (explore_tab, WIDE, 0, explore),
    "explore-ko": (explore_tab, WIDE, 1, explore),
    "compare": (compare_tab, WIDE, 0, compare),
}


def main(names: list[str]) -> None:
    unknown = set(names) - set(SHOTS)
    if unknown:
        raise SystemExit(f"there is no picture {min(unknown)!r}; there are: {', '.join(SHOTS)}")
    with serve(Shelf()) as served, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=FLAGS)
        for name in names or SHOTS:
            tab, window, language, pressed = SHOTS[name]
            page = browser.new_page(viewport=window, locale=LANGUAGES[language])
            page.set_default_timeout(WAIT)
            page.goto(served.url)
            page.get_by_role("tab", name=tab.WORDS[tab.NAME][language], exact=True).click()
            page.wait_for_timeout(800)
            pressed(page)
            page.wait_for_timeout(1500)
            save(page.screenshot(full_page=True), IMAGES / f"demo-{name}.png")
            page.close()
        browser.close()


def save(screenshot: bytes, path: Path) -> None:
    """A PNG of few colours, and its name and size on stdout."""
    image = Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(f"{path}: {image.width}x{image.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
