"""Generate in a browser: the first click, cancelling, two people at once."""

from __future__ import annotations


def test_the_first_click_draws(page):
    page.click("#generate-go")
    page.wait_for_selector("#generate-live img")
    page.wait_for_selector("#generate-result .gallery-item img")
    assert page.locator("#generate-result .gallery-item").count() == 4
