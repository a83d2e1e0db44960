"""Edit in a browser: strokes and masks drawn with the mouse, and what comes of them."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

SIDE = 256  # pixels of a canvas


def draw(page, part: str, lines) -> None:
    """Strokes of the brush with the mouse, ((x, y), (x, y)) each in the canvas's own pixels."""
    canvas = page.locator(f"#{part}-canvas canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    page.click(f"#{part}-canvas button[aria-label='Brush']")
    page.keyboard.press("Escape")  # closes the palette
    page.wait_for_timeout(1000)  # the canvas moves to its place
    zoom = float(re.search(r"(\d+)%", page.inner_text(f"#{part}-canvas")).group(1)) / 100
    box = canvas.bounding_box()
    left, top = (box["x"] + box["width"] / 2 - zoom * SIDE / 2, box["y"] + box["height"] / 2 - zoom * SIDE / 2)
    for start, end in lines:
        page.mouse.move(left + zoom * start[0], top + zoom * start[1])
        page.mouse.down()
        page.mouse.move(left + zoom * end[0], top + zoom * end[1], steps=8)
        page.mouse.up()
    page.wait_for_timeout(300)


def results(page, part: str, n: int) -> list[np.ndarray]:
    """The finished pictures, (H, W, 3) bytes."""
    page.wait_for_function("p => document.querySelector(`#${p}-live`).innerText.includes('Finished')", arg=part)
    items = page.locator(f"#{part}-result .gallery-item img")
    items.nth(n - 1).wait_for()
    assert items.count() == n
    files = [page.request.get(items.nth(i).get_attribute("src")).body() for i in range(n)]
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")).astype(int) for file in files]


def setting(page, part: str, label: str, value: float) -> None:
    page.locator(f"#{part}-{label} input[type=number]").fill(str(value))
    page.locator(f"#{part}-{label} input[type=number]").press("Tab")


def test_strokes_drawn_with_the_mouse_become_a_picture(open_page):
    page = open_page("Edit")
    draw(page, "strokes", [((40, 240), (216, 240))])  # below the face, where the example is white
    setting(page, "strokes", "strength", 0)
    page.click("#strokes-go")
    drawn, _ = results(page, "strokes", 2)
    assert drawn[60, 32].max() - drawn[60, 32].min() > 100, "the stroke is there, in its colour"
    assert (drawn[4, 2] == 255).all(), "the paper is white"
    setting(page, "strokes", "strength", 0.6)
    page.click("#strokes-more")
    setting(page, "strokes", "steps", 8)
    page.click("#strokes-go")
    page.wait_for_selector("#strokes-live img")  # a preview while it runs
    made, other = results(page, "strokes", 2)
    assert abs(made - drawn).mean() > 2 < abs(made - other).mean()


def test_an_example_fills_the_canvas_and_an_empty_one_is_refused(open_page):
    page = open_page("Edit")
    page.locator("#strokes-examples .gallery-item, #strokes-examples button").nth(1).click()
    page.wait_for_function("document.querySelector('#strokes-class input').value === 'heart'")
    setting(page, "strokes", "strength", 0)
    page.click("#strokes-go")
    drawn, _ = results(page, "strokes", 2)
    assert (abs(drawn[25, 32] - (235, 50, 70)) < 12).all(), "the middle of the heart is red"
    page.click("#strokes-canvas button[aria-label='Clear canvas']")
    page.wait_for_timeout(500)
    page.click("#strokes-go")
    page.locator(".toast-body.error", has_text="canvas is empty").wait_for()


def test_a_mask_painted_with_the_mouse_is_what_changes(open_page):
    page = open_page("Edit")
    page.get_by_role("tab", name="Inpaint", exact=True).click()
    page.click("#inpaint-go")
    error = page.locator(".toast-body.error")
    error.wait_for()
    assert "No mask is drawn" in error.inner_text()
    page.get_by_label("blend", exact=False).first.check()
    page.click("#inpaint-more")
    setting(page, "inpaint", "steps", 6)
    draw(page, "inpaint", [((80, 160), (176, 160)), ((80, 190), (176, 190))])
    page.click("#inpaint-go")
    made, other = results(page, "inpaint", 2)
    changed = (made != other).any(2)
    rows, columns = np.nonzero(changed)
    assert changed[36:50, 22:44].mean() > 0.5, "inside the strokes it is new"
    assert 32 <= rows.min() and rows.max() <= 56 and 12 <= columns.min() and columns.max() <= 52, "and nowhere else"


def test_on_a_phone_in_korean(open_page):
    page = open_page("편집", locale="ko-KR", viewport={"width": 390, "height": 844})
    page.get_by_role("button", name="그림으로 만들기").wait_for()
    assert page.get_by_role("tab", name="그리기", exact=True).is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing has to be scrolled sideways"
