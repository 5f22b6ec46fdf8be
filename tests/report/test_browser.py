"""The report in a real browser, as a person opens it: with a mouse, keys alone, a phone, a printer, no scripts."""

import struct
from itertools import pairwise
from pathlib import Path

import pytest

from finetune import report
from tests.fabricated import Fabricator, topics
from tests.report.chromium import Chromium

pytestmark = pytest.mark.browser

SCREENS = Path(__file__).parents[2] / "build" / "report-screens"
"""Where pictures of the last run are kept for people to look at."""

LONG = 'a-very-long-variant-name-<b>"quoted"&-with-שלום-عالم-日本語-🦙-and-no-end'


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of fifteen runs of three variants."""
    made = topics(tmp_path_factory.mktemp("study") / "topics")
    report.build(made.path)
    return made.path / "report" / "index.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The report of a study with long names, failures, markup and right-to-left text."""
    variants = {LONG: "adapter", "lora": "adapter", "full": "full"}
    path = tmp_path_factory.mktemp("study") / "hostile"
    made = Fabricator(path, [1, 2, 3, 4, 5], variants, labels=("</script>", LONG), name=f"</title><script>{LONG}")
    made.study()
    for seed in made.seeds:
        for index, variant in enumerate(variants):
            crashed = index == seed % 4
            made.run(variant, seed, None if crashed else 0.9 - 0.1 * index, *(("error", LONG) if crashed else ()))
    report.build(path)
    return path / "report" / "index.html"


def rows(browser, table, cell):
    """Texts of one cell of every visible row of a table, in order."""
    body = f"[...document.querySelector({table!r}).tBodies[0].rows]"
    return browser.evaluate(
        f"{body}.filter(row => !row.hidden).map(row => row.cells[{cell}].querySelector('bdi').textContent)"
    )


def click(browser, selector):
    browser.evaluate(f"document.querySelector({selector!r}).click()")


SCORES = "#task-test > .scroll table"
FOLD = 'details:has(> .scroll[aria-label^="Every run on test"])'
RUNS = f"{FOLD} table"


@pytest.mark.parametrize("media", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("study", ["page", "hostile"])
def test_it_is_drawn_without_a_complaint_or_a_request(browser, request, study, width, media):
    file = request.getfixturevalue(study)
    browser.open(file, width, media={"prefers-color-scheme": media})
    picture = browser.screenshot(SCREENS / f"{study}-{width}-{media}.png")
    assert browser.complaints() == []
    assert browser.requests() == [file.as_uri()]
    assert struct.unpack(">I", picture[16:20]) == (width,)
    assert len(picture) > 20_000, "an empty page is smaller"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    open_all = "for (const fold of document.querySelectorAll('details')) fold.open = true"
    browser.evaluate(open_all)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width, "an open fold scrolls the page sideways"


def test_an_answer_is_seen_without_scrolling_sideways(browser, page):
    browser.open(page, 400)
    for column in (1, 2, 3):  # the pair, its verdict, the difference with its interval
        heading = f"document.querySelector('#differences > .scroll th:nth-child({column})').getBoundingClientRect()"
        assert browser.evaluate(f"{heading}.right") <= 400
    browser.open(page, 1100)
    sideways = "[...document.querySelectorAll('#task-test > .scroll, #differences > .scroll')]"
    assert browser.evaluate(f"{sideways}.filter(each => each.scrollWidth > each.clientWidth + 1).length") == 0


def test_a_command_does_not_break_within_an_option(browser, fabricator):
    made = fabricator([1, 2, 3], {"lora": "adapter", "full": "full"}, name="a-long-name-of-a-study")
    for seed in made.seeds:
        made.run("lora", seed, 0.9 + seed / 500)
        made.run("full", seed, 0.91 - seed / 500)
    report.build(made.path)
    browser.open(made.path / "report" / "index.html", 400)
    option = "document.querySelector('.sentence .command span')"
    assert browser.evaluate(f"{option}.textContent").startswith("--detect ")
    assert browser.evaluate(f"{option}.getClientRects().length") == 1


def test_the_policy_stops_what_is_not_ours(browser, page):
    browser.open(page)
    stopped = browser.evaluate(
        """new Promise(done => {
            const seen = [];
            setTimeout(() => done(seen), 5000);
            addEventListener("securitypolicyviolation", event => {
                seen.push(event.effectiveDirective);
                if (seen.length == 3) done(seen.sort());
            });
            const add = (name, properties) => document.body.append(
                Object.assign(document.createElement(name), properties));
            add("img", {src: "http://127.0.0.1:9/pixel.png"});
            add("script", {textContent: "document.title = 'taken over'"});
            add("style", {textContent: "body { color: red }"});
        })"""
    )
    assert stopped == ["img-src", "script-src-elem", "style-src-elem"]
    assert browser.evaluate("document.title") != "taken over"


def test_a_click_sorts_up_then_down_then_not(browser, page):
    browser.open(page)
    before = rows(browser, SCORES, 0)
    heading, button = f"{SCORES} th:nth-child(2)", f"{SCORES} th:nth-child(2) button"
    seen = []
    for _ in range(3):
        click(browser, button)
        state = browser.evaluate(f"document.querySelector({heading!r}).getAttribute('aria-sort')")
        seen.append((state, rows(browser, SCORES, 1)))
    assert [state for state, _ in seen] == ["ascending", "descending", None]
    up = [float(text) for text in seen[0][1]]
    assert up == sorted(up) and len(set(up)) > 2
    assert [float(text) for text in seen[1][1]] == up[::-1]
    assert rows(browser, SCORES, 0) == before


def test_one_column_is_sorted_at_a_time_and_missing_numbers_stay_last(browser, page):
    browser.open(page)
    for column in (4, 5):  # the base model cannot fail, and has no spread
        for way in ("ascending", "descending"):
            click(browser, f"{SCORES} th:nth-child({column + 1}) button")
            shown = rows(browser, SCORES, column)
            marked = browser.evaluate("[...document.querySelectorAll('[aria-sort]')].map(th => th.ariaSort)")
            assert marked == [way]
            assert shown[-1] == "–" and "–" not in shown[:-1]
            lows = [float(text.strip("[").partition(",")[0]) for text in shown[:-1]]
            assert lows == sorted(lows, reverse=way == "descending")


def test_words_are_sorted_as_words_with_their_numbers(browser, page):
    browser.open(page)
    click(browser, f"{SCORES} th:nth-child(1) button")
    assert rows(browser, SCORES, 0) == ["base", "full", "linear", "lora"]
    browser.evaluate(f"document.querySelector('{FOLD}').open = true")
    click(browser, f"{RUNS} th:nth-child(2) button")
    seeds = browser.evaluate(f"[...document.querySelectorAll('{RUNS} tbody tr')].map(row => row.cells[1].textContent)")
    assert seeds[:15] == [str(seed) for seed in (1, 2, 3, 4, 5) for _ in range(3)] and seeds[15:] == ["–"]


def test_it_sorts_from_the_keyboard(browser, page):
    browser.open(page)
    browser.evaluate(f"document.querySelector('{SCORES} th:nth-child(1) button').focus()")
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.matches('th:nth-child(2) button')")
    browser.press("Enter", "\r")
    assert browser.evaluate("document.activeElement.parentElement.ariaSort") == "ascending"
    browser.press(" ", " ")
    assert browser.evaluate("document.activeElement.parentElement.ariaSort") == "descending"


def test_only_long_tables_filter_and_say_how_many_rows_remain(browser, page):
    browser.open(page)
    assert browser.evaluate(
        f"document.querySelector('{SCORES}').closest('.scroll').previousElementSibling.className"
    ) != ("filter")
    browser.evaluate(f"document.querySelector('{FOLD}').open = true")
    count = f"document.querySelector('{FOLD} .count').textContent"
    assert browser.evaluate(count) == "16 rows"
    browser.evaluate(f"document.querySelector('{FOLD} input').focus()")
    browser.call("Input.insertText", text="FULL fin")
    names = browser.evaluate(
        f"[...document.querySelectorAll('{RUNS} tbody tr')].filter(row => row.checkVisibility())"
        ".map(row => row.cells[0].textContent.trim())"
    )
    assert names == ["full"] * 5
    assert browser.evaluate(count) == "5 of 16 rows"
    live = "document.querySelector('[role=status]').textContent"
    assert browser.evaluate(live) == "5 of 16 rows"
    click(browser, f"{RUNS} th:nth-child(2) button")
    browser.call("Input.insertText", text=" nothing")
    assert browser.evaluate(live) == "0 of 16 rows"
    browser.evaluate("document.activeElement.select()")
    browser.call("Input.insertText", text="")
    assert browser.evaluate(f"document.querySelector('{FOLD} input').labels[0].textContent").startswith(
        "Filter rows of the table Every run on test"
    )


def test_a_variant_hides_everywhere_and_comes_back(browser, page):
    browser.open(page)
    lora = "#variants input[value='1']"
    script = """(() => {
        const seen = (selector) => [...document.querySelectorAll(selector)].filter(
            (element) => element.checkVisibility({ visibilityProperty: true }));
        const named = (name) => seen("tbody tr").filter((row) => row.cells[0].textContent.includes(name)).length;
        const drawn = (colour) => seen(`svg .${colour}, svg.${colour}`).length;
        return { rows: named("lora"), others: named("full"), drawn: drawn("c1"), drawnOthers: drawn("c2") };
    })()"""
    before = browser.evaluate(script)
    assert all(before.values())
    click(browser, lora)
    after = browser.evaluate(script)
    assert after["rows"] == 0 and after["drawn"] == 0
    assert 0 < after["others"] < before["others"], "the comparison with lora goes too"
    assert after["drawnOthers"] == before["drawnOthers"]
    assert browser.evaluate("document.querySelector('[role=status]').textContent") == "2 of 3 variants shown"
    browser.screenshot(SCREENS / "page-without-lora.png")
    click(browser, lora)
    assert browser.evaluate(script) == before


def test_without_scripts_all_is_there_and_no_button_is_dead(browser, page):
    browser.open(page, scripts=False)
    visible = "[...document.querySelectorAll('button, input, fieldset')].filter(e => e.checkVisibility()).length"
    assert browser.evaluate(visible) == 0
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") > 30
    assert browser.evaluate("document.querySelectorAll('tr[hidden]').length") == 0
    assert browser.evaluate("document.querySelectorAll('svg').length") >= 5
    browser.screenshot(SCREENS / "page-without-scripts.png")


def test_a_screen_reader_finds_its_way(browser, page):
    browser.open(page)
    headings = browser.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert headings[0] == 1 and headings.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))
    for landmark in ("header", "nav[aria-label]", "main"):
        assert browser.evaluate(f"document.querySelectorAll('body > {landmark}').length") == 1
    unnamed = "[...document.querySelectorAll('{}')].filter(e => !({})).map(e => e.outerHTML.slice(0, 200))"
    for elements, name in {
        "table": "e.caption && e.caption.textContent.trim()",
        "svg": "e.getAttribute('role') === 'img' && e.getAttribute('aria-label') && e.querySelector('title')",
        "input": "e.labels.length && e.labels[0].textContent.trim()",
        "button": "e.textContent.trim()",
        "thead th": "e.scope === 'col'",
        "tbody th": "e.scope === 'row'",
    }.items():
        assert browser.evaluate(unnamed.format(elements, name)) == []
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_the_first_tab_skips_to_the_results(browser, page):
    browser.open(page)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.className") == "skip"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    browser.press("Enter", "\r")
    assert browser.evaluate("document.activeElement.id") == "content"


def test_paper_shows_what_the_screen_folds(browser, page):
    browser.open(page, media={"prefers-color-scheme": "dark"})
    closed = "document.querySelectorAll('details:not([open])').length"
    before = browser.evaluate(closed)
    assert before > 2
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate(closed) == 0
    browser.evaluate("dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate(closed) == before
    printed = browser.pdf(SCREENS / "page.pdf")
    assert printed.startswith(b"%PDF") and browser.complaints() == []
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    for gone in ("nav", ".chips", ".filter", ".skip"):
        assert not browser.evaluate(f"document.querySelector('{gone}').checkVisibility()")
    assert browser.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    # Chromium repeats no heading with a button's box in it on the next page.
    assert browser.evaluate("getComputedStyle(document.querySelector('.sort')).display") == "contents"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_large_study_stays_small_and_quick(browser, tmp_path):
    variants = {"linear": "linear", LONG: "full", **{name: "adapter" for name in ("lora", "dora", "ia3", "vera")}}
    made = Fabricator(tmp_path / "large", list(range(20)), variants, tasks=("test", "tweets"))
    made.study()
    for seed in made.seeds:
        for index, variant in enumerate(variants):
            failed = ("degenerate", "at the level of chance") if seed == index else ()
            made.run(variant, seed, 0.2 if failed else 0.95 - 0.01 * index, *failed)
    report.build(made.path)
    file = made.path / "report" / "index.html"
    assert file.stat().st_size < 3_000_000
    browser.open(file, 360)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360
    browser.open(file)
    assert browser.evaluate(f"document.querySelectorAll('{RUNS} tbody tr').length") == 120
    took = browser.evaluate(
        """(() => {
            const start = performance.now();
            for (const button of document.querySelectorAll(".sort")) button.click();
            for (const box of document.querySelectorAll("#variants input")) box.click();
            document.body.getBoundingClientRect();
            return performance.now() - start;
        })()"""
    )
    assert took < 5000, "milliseconds for sorting every column of every table, and hiding every variant"
    assert browser.evaluate(f"document.querySelectorAll('{RUNS} tbody tr:not([hidden])').length") == 0
    browser.open(file)
    browser.screenshot(SCREENS / "large.png")
    assert browser.complaints() == []
