"""The page as a whole: languages, a phone's width, names for screen readers, Text and Compare."""

from __future__ import annotations

import re

import pytest

from demos.app import TABS
from demos.words import COMMON, translations

NAMES = [tab.WORDS[tab.NAME] for tab in TABS]


@pytest.mark.parametrize(("locale", "language"), [("en-US", 0), ("ko-KR", 1)])
def test_every_tab_speaks_the_browsers_language_and_fits_a_phone(open_page, locale, language):
    page = open_page(locale=locale, viewport={"width": 390, "height": 844})
    wanted = translations(tab.WORDS for tab in TABS).translations
    wanted = set(wanted["ko" if language else "en"].values())
    for names in NAMES:
        tab = page.get_by_role("tab", name=names[language], exact=True)
        if not tab.count() or not tab.is_visible():  # on a phone some are behind the menu of more
            page.locator(".overflow-menu > button").first.click()
            tab = page.locator(".overflow-dropdown button", has_text=names[language])
        tab.click()
        page.wait_for_timeout(300)
        text = page.inner_text("body")
        assert "__i18n__" not in text and "translation_metadata" not in text
        assert not re.search(r"\b(generate|text|edit|segment|explore|compare|common)\.[a-z]", text), names
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, f"{names[0]} is wider than a phone"
    assert COMMON["page.about"][language] in page.inner_text("body") and wanted


def test_every_control_has_a_name(open_page):
    page = open_page()
    unnamed = """() => [...document.querySelectorAll('button, input, select, textarea, img')].filter(e =>
        e.offsetParent !== null && !e.closest('[aria-hidden=true]') && e.type !== 'file' &&
        !['aria-label', 'aria-labelledby', 'alt', 'title', 'placeholder'].some(name => e.getAttribute(name)) &&
        !e.labels?.length && !e.innerText?.trim() && !e.querySelector('img[alt]:not([alt=""])')
        ).map(e => e.outerHTML.slice(0, 200))"""
    for names in NAMES:
        page.get_by_role("tab", name=names[0], exact=True).click()
        page.wait_for_timeout(300)
        assert page.evaluate(unnamed) == [], names[0]


def test_text_draws_and_plots_its_terms(open_page):
    page = open_page("Text")
    page.fill("#text-prompts textarea", "red heart")
    page.fill("#text-pictures input[type=number]", "1")
    page.get_by_role("button", name="More settings").locator("visible=true").click()
    page.fill("#text-steps input[type=number]", "3")
    page.keyboard.press("Tab")
    page.click("#text-go")
    page.wait_for_selector("#text-result .gallery-item img")
    assert "“red heart” is drawn as the class heart" in page.inner_text("#text-live")
    for plot in ("#text-value", "#text-pull"):
        page.wait_for_selector(f"{plot} svg, {plot} canvas")
    page.wait_for_selector("#text-value svg .role-legend")
    legend, box = (page.locator(f"#text-value{part}").first.bounding_box() for part in (" svg .role-legend", ""))
    assert legend["y"] + legend["height"] <= box["y"] + box["height"], "the legend is cut off"


def test_hints_are_dark_enough_to_be_read(page):
    colour = page.evaluate(
        """() => { const hint = [...document.querySelectorAll('.gradio-container *')].find(
            e => !e.children.length && e.textContent.trim().startsWith('Type to search'));
            return getComputedStyle(hint).color.match(/\\d+/g).slice(0, 3).map(Number); }"""
    )
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    assert 1.05 / (luminance + 0.05) >= 4.5, f"{colour} on white: WCAG 2, 1.4.3"


def test_compare_fills_its_table(open_page):
    page = open_page("Compare")
    box = page.locator("#compare-model input")
    box.click()
    box.fill("tiny")
    box.press("Enter")
    page.fill("#compare-scales input, #compare-scales textarea", "1, 3")
    page.fill("#compare-steps input, #compare-steps textarea", "2")
    page.keyboard.press("Tab")
    page.click("#compare-go")
    page.wait_for_selector("#compare-table tr:nth-child(3) img")
    assert page.locator("#compare-table th[scope=row]").all_inner_texts() == ["ddim, 2 steps", "unipc, 2 steps"]
    assert page.locator("#compare-table img[alt='unipc, 2 steps, guidance scale 3']").count() == 1
