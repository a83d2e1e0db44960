"""Explore in a browser: equations and plots without a network, the slider, a comparison and its Cancel."""

from __future__ import annotations


def source(page, selector: str) -> str:
    return page.locator(f"{selector} img").first.get_attribute("src")


def lesson(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_the_slider_walks_through_the_forward_process(open_page):
    page = open_page("Explore")
    page.locator(".lesson .katex").first.wait_for()  # the equations are drawn
    before = source(page, "#explore-noisy")
    page.locator("#explore-t input[type=number]").fill("900")
    page.locator("#explore-t input[type=number]").press("Tab")
    page.wait_for_function("s => document.querySelector('#explore-noisy img').src !== s", arg=before)
    page.wait_for_function("document.querySelector('#explore-numbers').innerText.includes('900')")
    lesson(page, "2 Schedules")
    page.wait_for_function(
        "[...document.querySelectorAll('.vega-embed svg')].some(c => c.getBoundingClientRect().width > 100)"
    )


def test_estimates_and_beliefs_are_shown(open_page):
    page = open_page("알아보기", locale="ko-KR")
    lesson(page, "3 노이즈 제거")
    page.click("#explore-denoiser-go")
    page.locator("#explore-denoiser-figure img").wait_for()
    page.locator("#explore-belief svg.marks").first.wait_for()


def test_a_comparison_can_be_cancelled_and_run_again(open_page):
    page = open_page("Explore")
    lesson(page, "5 Extra noise")
    page.locator("#explore-eta-steps input[type=number]").fill("40")
    page.locator("#explore-eta-steps input[type=number]").press("Tab")
    page.click("#explore-eta-go")
    page.wait_for_selector("#explore-eta-live img")
    page.click("#explore-eta-stop")
    page.wait_for_function("document.querySelector('#explore-eta-live').innerText.includes('Cancelled')")
    page.wait_for_timeout(1000)  # while a cancel is under way, gradio's page drops a click on the same button
    page.locator("#explore-eta-steps input[type=number]").fill("4")
    page.locator("#explore-eta-steps input[type=number]").press("Tab")
    page.click("#explore-eta-go")
    page.wait_for_function("document.querySelector('#explore-eta-live').innerText.includes('16 of 16')")
    page.locator("#explore-eta-figure img").wait_for()
