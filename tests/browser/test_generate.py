"""Generate in a browser: the first click, cancelling, what a change did, two people at once."""

from __future__ import annotations

import re

from demos import recipes
from guided import cli


def choose(page, elem_id: str, value: str) -> None:
    """Pick a value of a dropdown, by keyboard."""
    box = page.locator(f"#{elem_id} input")
    box.click()
    box.fill(value)
    box.press("Enter")


def quick(page, seed: int = 0) -> None:
    """The tiny model, one picture."""
    choose(page, "generate-model", "tiny")
    page.wait_for_function("document.querySelector('#generate-classes').innerText.includes('heart')")
    page.fill("#generate-pictures input[type=number]", "1")
    page.fill("#generate-seed input", str(seed))
    page.keyboard.press("Tab")


def result(page):
    page.wait_for_selector("#generate-result .gallery-item img")
    return page.locator("#generate-result .gallery-item img")


def test_the_first_click_draws_live_and_what_is_downloaded_replays(page, tmp_path, capsys):
    page.click("#generate-go")
    page.wait_for_selector("#generate-live img")
    assert re.match(r"Step \d+ of 20, .* left", page.inner_text("#generate-live .live-said"))
    assert result(page).count() == 4
    page.wait_for_function("[...document.querySelectorAll('#generate-result img')].every(i => i.naturalWidth == 64)")
    with page.expect_download() as download:
        page.click("#generate-grid")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "face-smiling-0-grid.png"
    assert cli.main(["replay", str(path)]) == 0 and "equal, every pixel" in capsys.readouterr().out


def test_cancel_ends_the_run_within_a_step(page, monkeypatch):
    made, real = [], recipes.states

    def counted(*arguments):
        for state in real(*arguments):
            made.append(state.step)
            yield state

    monkeypatch.setattr(recipes, "states", counted)
    page.get_by_role("button", name="More settings").click()
    page.fill("#generate-steps input[type=number]", "250")
    page.click("#generate-go")
    page.wait_for_selector("#generate-live img")
    page.click("#generate-stop")
    page.wait_for_function("document.querySelector('#generate-live').innerText.includes('Cancelled')")
    page.wait_for_timeout(300)
    at_cancel = len(made)
    page.wait_for_timeout(1000)
    assert len(made) <= at_cancel + 1 < 250  # the step that was being made
    assert page.locator("#generate-result .gallery-item").count() == 0
    quick(page)  # and the device is free again
    page.fill("#generate-steps input[type=number]", "3")
    page.click("#generate-go")
    assert result(page).count() == 1


def test_what_one_change_did_stands_side_by_side(page):
    quick(page)
    page.click("#generate-go")
    result(page)
    assert page.locator("#generate-compared figure").count() == 0
    page.fill("#generate-guidance input[type=number]", "5")
    page.keyboard.press("Tab")
    page.click("#generate-go")
    page.wait_for_selector("#generate-compared figure")
    assert page.inner_text("#generate-compared p") == "guidance scale 3 → 5"
    assert page.locator("#generate-compared figcaption").all_inner_texts() == ["Before", "Now"]


def test_two_people_at_once_see_their_own_and_who_waits_the_place(open_page, monkeypatch):
    import threading

    gate, real = threading.Event(), recipes.states
    monkeypatch.setattr(recipes, "states", lambda *arguments: gate.wait(60) and real(*arguments))
    one, other = open_page(), open_page()
    for person, seed in ((one, 1), (other, 2)):
        quick(person, seed)
        person.click("#generate-go")
        person.wait_for_timeout(400)
    other.wait_for_function("/queue: 1\\/1/.test(document.querySelector('#generate-live').parentElement.innerText)")
    other.click("#generate-stop")  # the one who waits leaves; the other's run goes on
    other.wait_for_function("document.querySelector('#generate-live').innerText.includes('Cancelled')")
    gate.set()
    result(one)
    assert one.inner_text("#generate-result .caption-label") == "seed 1"
    assert other.locator("#generate-result .gallery-item").count() == 0
    other.click("#generate-go")
    result(other)
    assert other.inner_text("#generate-result .caption-label") == "seed 2"
    assert one.inner_text("#generate-result .caption-label") == "seed 1"


def test_bad_input_is_one_sentence_on_the_page(page):
    quick(page)
    page.fill("#generate-pictures input[type=number]", "1")
    box = page.locator("#generate-classes input")
    box.click()
    box.fill("cat:0.5+dgo:0.5")
    box.press("Enter")
    page.click("#generate-go")
    toast = page.wait_for_selector(".toast-body.error")
    assert "Unknown class 'dgo'; did you mean 'dog'" in toast.inner_text() and "Traceback" not in toast.inner_text()


def test_a_mixture_and_an_example_fill_the_form(page):
    page.click("#generate-example-mix")
    page.wait_for_function("document.querySelector('#generate-classes').innerText.includes('cat-face')")
    assert page.get_by_label("mixed in one picture").is_checked()
    assert page.input_value("#generate-guidance input[type=number]") == "2.5"


def test_it_works_by_keyboard_alone(page):
    page.locator("#generate-seed input").focus()
    for _ in range(3):  # the button of a new seed, Enlarge, then Generate
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "generate-go"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "generate-stop"
