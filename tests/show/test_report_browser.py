"""The report in a browser: what it does, and that it neither fetches nor runs anything that is not its own."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

from sample_study import CODE, CONFIRM, FIXED, SEARCH, write_sample_study
from tune_lr.show.report.write import write_page
from tune_lr.store.files import read_yaml, write_json, write_yaml
from tune_lr.store.study_dir import StudyDir

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")

TRIALS = 3 + len(SEARCH) + len(CONFIRM) + len(FIXED)
NARROW = {"width": 375, "height": 700}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyDir:
    study = write_sample_study(tmp_path_factory.mktemp("studies") / "sample", fixed=True)
    write_page(study)
    return study


class Opened:
    """A report in a tab of its own, with its messages on the console and its requests."""

    def __init__(self, browser: Browser, study: StudyDir, before: str = "", **context: Any) -> None:
        self.messages: list[str] = []
        self.requests: list[Request] = []
        self.context = browser.new_context(**context)
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.requests.append(request))
        if before:
            self.page.add_init_script(before)
        self.page.goto(study.report_html.as_uri())

    def _dismiss(self, dialog: Dialog) -> None:
        self.messages.append(dialog.message)
        dialog.dismiss()

    def trials(self) -> list[int]:
        """The numbers of the rows that are seen, from top to bottom."""
        return [int(text) for text in self.page.locator("#trials tr.trial:visible td:first-child").all_inner_texts()]

    def width(self) -> int:
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return width


@pytest.fixture(scope="module")
def shared(browser: Browser, study: StudyDir) -> Opened:
    return Opened(browser, study)


@pytest.fixture
def opened(shared: Opened) -> Iterator[Opened]:
    """One tab for several tests, each of which leaves the table's order behind it and nothing else."""
    yield shared
    assert shared.messages == []
    assert len(shared.requests) == 1


def test_it_draws_every_chart_and_asks_for_nothing(opened: Opened) -> None:
    charts = opened.page.locator(".chart")
    assert charts.count() == 6 + 3 * 3
    assert opened.page.locator(".chart svg .series").count() > 60
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg text").count() >= 4, charts.nth(i).get_attribute("data-chart")
    assert "NaN" not in opened.page.locator("main").inner_html()
    assert [request.url for request in opened.requests] == [opened.page.url]


def test_the_table_sorts_both_ways_with_what_is_missing_last(opened: Opened) -> None:
    page = opened.page
    assert len(opened.trials()) == TRIALS
    page.get_by_role("button", name="trial", exact=True).click()
    assert opened.trials() == list(range(TRIALS))
    page.get_by_role("button", name="lr", exact=True).click()
    lrs = [float(text) for text in page.locator("#trials tr.trial td:nth-child(6)").all_inner_texts()]
    assert lrs == sorted(lrs)
    assert len(set(lrs)) > 5
    loss = page.locator("#trials th").filter(has_text="val_loss")
    for direction in ("ascending", "descending"):
        loss.get_by_role("button").click()
        assert loss.get_attribute("aria-sort") == direction
        shown = page.locator("#trials tr.trial td:nth-child(8)").all_inner_texts()
        assert shown[-4:] == ["–"] * 4
        losses = [float(text) for text in shown[:-4]]
        assert losses == sorted(losses, reverse=direction == "descending")


def test_the_table_filters_by_text_and_by_choice(opened: Opened) -> None:
    page = opened.page
    page.locator("#filter-text").fill("ONECYCLE 0.31")
    assert sorted(opened.trials()) == [3, 15, 16]
    page.locator("#filter-phase").select_option("confirm")
    assert sorted(opened.trials()) == [15, 16]
    assert page.locator("#filter-count").inner_text() == f"2 of {TRIALS} trials"
    page.locator("#filter-text").fill("")
    page.locator("#filter-phase").select_option("")
    page.locator("#filter-state").select_option("diverged")
    assert sorted(opened.trials()) == [10, 12]
    page.locator("#filter-schedule").select_option("cosine")
    assert opened.trials() == [12]
    for choice in ("state", "schedule"):
        page.locator(f"#filter-{choice}").select_option("")
    assert len(opened.trials()) == TRIALS


def test_a_click_on_a_trial_shows_its_curves(opened: Opened) -> None:
    button = opened.page.locator("button[data-trial='8']")
    button.click()
    detail = opened.page.locator("tr.detail")
    assert detail.locator(".chart svg").count() == 2
    assert detail.locator("xpath=preceding-sibling::tr[1]").locator("td").first.inner_text().strip() == "8"
    opened.page.locator("button[data-trial='4']").click()
    assert detail.count() == 1
    assert button.get_attribute("aria-expanded") == "false"
    opened.page.locator("button[data-trial='4']").click()
    assert detail.count() == 0


def wait_until(opened: Opened, condition: str) -> None:
    """Playwright's `wait_for_function` looks again by `eval`, which the report's own policy forbids."""
    look = f"const look = () => {condition} ? done() : requestAnimationFrame(look); look()"
    opened.page.evaluate(f"() => new Promise(done => {{ {look} }})")


def test_a_legend_hides_its_curves_in_every_chart_of_its_group(opened: Opened) -> None:
    group = opened.page.locator(".group").filter(has=opened.page.locator("[data-chart=lr_curves]"))
    curves = group.locator(".series[data-key=cosine]")
    visible = group.locator(".series[data-key=cosine]:visible")
    assert curves.count() == visible.count() == 6
    group.locator("button[data-key=cosine]").click()
    assert visible.count() == 0
    assert opened.page.locator("[data-chart=timeline] .series[data-key=cosine]:visible").count() > 0
    opened.page.set_viewport_size({"width": 900, "height": 700})  # drawn anew, and still hidden
    wait_until(opened, "document.querySelector('[data-chart=lr_curves] svg').viewBox.baseVal.width < 500")
    assert visible.count() == 0
    group.locator("button[data-key=cosine]").click()
    assert visible.count() == 6
    opened.page.set_viewport_size({"width": 1280, "height": 720})


def test_pointing_at_a_curve_says_what_it_is(opened: Opened) -> None:
    chart = opened.page.locator("[data-chart=loss_over_lr]")
    chart.scroll_into_view_if_needed()
    box = chart.locator(".series[data-key=exponential]").bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = chart.locator(".tip").inner_text()
    assert re.fullmatch(r"trial 6, exponential, lr 0\.18: complete after 310 steps, val_loss 0\.\d+", tip)
    opened.page.mouse.move(0, 0)
    assert chart.locator(".tip").count() == 0


PASTED = """() => {
  const area = document.body.appendChild(document.createElement('textarea'));
  area.focus();
}"""


@pytest.mark.parametrize("before", ["", "Object.defineProperty(navigator, 'clipboard', {value: undefined})"])
def test_the_code_is_copied(browser: Browser, study: StudyDir, before: str) -> None:
    """By the clipboard's own interface, and where a page has none."""
    opened = Opened(browser, study, before)
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = opened.page.locator("#answer .code button")
    button.click()
    wait_until(opened, "document.querySelector('#answer .code button').textContent === 'Copied'")
    opened.page.evaluate(PASTED)
    opened.page.keyboard.press("Control+V")
    assert opened.page.locator("textarea").input_value().strip() == CODE.strip()
    assert opened.messages == []
    opened.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_follows_the_theme(browser: Browser, study: StudyDir, theme: Any) -> None:
    opened = Opened(browser, study, color_scheme=theme)
    background = opened.page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
    ink = opened.page.locator(".chart text").first.evaluate("e => getComputedStyle(e).fill")
    light = [sum(map(int, re.findall(r"\d+", text)[:3])) / 765 for text in (background, ink)]
    assert light[0] > 0.95 and light[1] < 0.5 if theme == "light" else light[0] < 0.15 and light[1] > 0.5
    opened.context.close()


def test_on_a_phone_the_page_does_not_scroll_sideways(browser: Browser, study: StudyDir) -> None:
    opened = Opened(browser, study, viewport=NARROW, has_touch=True, is_mobile=True)
    assert opened.width() == NARROW["width"]
    opened.page.locator("button[data-trial='3']").tap()
    assert opened.page.locator("tr.detail .chart svg").count() == 2
    assert opened.width() == NARROW["width"]
    widths = opened.page.locator(".chart").evaluate_all("all => all.map(e => e.getBoundingClientRect().right)")
    assert max(widths) <= NARROW["width"]
    assert opened.messages == []
    opened.context.close()


def test_on_paper_charts_fit(browser: Browser, study: StudyDir) -> None:
    opened = Opened(browser, study)
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 690, "height": 900})
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert set(opened.page.locator(".chart svg").evaluate_all("all => all.map(e => e.viewBox.baseVal.width)")) == {680}
    assert not opened.page.locator(".filters, .code button, nav").filter(visible=True).count()
    assert opened.width() <= 690
    over = "e => e.querySelector('svg').getBoundingClientRect().bottom - e.getBoundingClientRect().bottom"
    assert max(opened.page.locator(".chart").evaluate_all(f"all => all.map({over})")) < 1  # onto the text below
    assert len(opened.page.pdf()) > 50_000
    opened.context.close()


HOSTILE = (
    "</script><script>console.log('ran')</script><img src=x onerror=\"console.log('ran')\"><b onclick=alert(1)>'\"`{{x"
)


def test_hostile_texts_neither_run_nor_break_the_page(browser: Browser, tmp_path: Path) -> None:
    study = write_sample_study(tmp_path / "study", fixed=True)
    hostile: dict[str, Any] = {"lr_schedule": HOSTILE, "reason": HOSTILE, "parameters": {f"x.{HOSTILE}": HOSTILE}}
    rows = [replace(row, **hostile) if row.number in (3, 9) else row for row in study.read_rows()]
    study.write_rows([replace(row, label=HOSTILE) if row.label == "gamma 0.3" else row for row in rows])
    described = study.read_study()
    write_yaml(study.study_yaml, {**described, "name": HOSTILE, "packages": {HOSTILE: HOSTILE}})
    best = read_yaml(study.best_yaml)
    write_yaml(study.best_yaml, {**best, "verdict": HOSTILE, "code": HOSTILE, "test": {HOSTILE: 0.5}})
    bounds = study.read_json(study.bounds_json)
    write_json(study.bounds_json, {**bounds, "reason": HOSTILE})
    write_page(study)
    opened = Opened(browser, study)
    assert opened.page.locator(".verdict").inner_text() == HOSTILE
    assert opened.page.locator("main :is(script, img, b)").count() == len(best["finalists"])  # a mean each, no more
    opened.page.locator("button[data-trial='3']").click()
    assert opened.page.locator("tr.detail .chart svg").count() == 2
    button = opened.page.locator("#configurations button").filter(has_text=HOSTILE).first
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    opened.page.locator("#filter-schedule").select_option(HOSTILE)
    assert opened.trials() == [3, 9]
    assert opened.messages == []
    assert len(opened.requests) == 1
    opened.context.close()


def test_a_script_that_got_into_the_page_would_not_run(browser: Browser, study: StudyDir, tmp_path: Path) -> None:
    """Were a text to slip through unescaped, the content security policy would stop it."""
    page = study.report_html.read_text().replace("<main>", "<main><script>document.title = 'ran'</script>", 1)
    copy = StudyDir(tmp_path)
    copy.report_html.write_text(page)
    opened = Opened(browser, copy)
    assert opened.page.title() == "sample: LR study"
    assert any("Content Security Policy" in message for message in opened.messages)
    opened.context.close()
