"""Segment in a browser: an example and an upload become maps."""

from __future__ import annotations

from demos.tabs.edit_inputs import example


def test_the_first_click_finds_segments_and_an_upload_too(open_page):
    page = open_page("Segment")
    page.locator("#segment-samples input[type=number]").fill("4")
    page.locator("#segment-samples input[type=number]").press("Tab")
    page.click("#segment-go")
    page.wait_for_function("document.querySelector('#segment-live').innerText.includes('4 masks')")
    for name in ("overlay", "mask", "probability", "entropy", "disagreement", "strip"):
        page.locator(f"#segment-{name} img").first.wait_for()
    first = page.locator("#segment-overlay img").first.get_attribute("src")
    page.click("#segment-picture button[aria-label='Clear'], #segment-picture button[title='Remove Image']")
    page.locator("#segment-picture input[type=file]").set_input_files(example("nuclei-4"))
    page.locator("#segment-picture img").first.wait_for()
    page.click("#segment-go")
    page.wait_for_function("s => document.querySelector('#segment-overlay img').src !== s", arg=first)


def test_a_broken_file_is_refused(open_page, tmp_path):
    page = open_page("Segment")
    page.click("#segment-picture button[aria-label='Clear'], #segment-picture button[title='Remove Image']")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    page.locator("#segment-picture input[type=file]").set_input_files(tmp_path / "broken.png")
    page.wait_for_timeout(500)
    page.click("#segment-go")
    page.locator(".toast-body.error", has_text="cannot be read as a picture").wait_for()


def test_an_example_takes_the_pictures_place(open_page):
    page = open_page("Segment")
    shown = page.wait_for_selector("#segment-picture img").get_attribute("src")
    page.locator("#segment-examples button.gallery-item").nth(3).click()
    page.wait_for_function(
        "was => document.querySelector('#segment-picture img')?.src.endsWith(was) === false", arg=shown
    )
    assert page.locator("#segment-picture img").get_attribute("src").endswith("nuclei-4.png")
    assert page.locator(".toast-body").count() == 0
