"""The page: what it says, that text from data is escaped, and that it works in a real browser."""

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from conftest import HARNESS, ROOT, SENSITIVITY, write_jsonl
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from stages.lib.figures.comparison import Change, Comparison
from stages.lib.figures.definitions import FIGURES, Estimate
from stages.lib.figures.statistics import Interval, PValue
from stages.lib.figures.tables import COLUMNS
from stages.lib.files.rows import read_rows, write_rows
from stages.lib.plumbing.items import LocalReviews
from stages.lib.reporting.page import flipped_reviews, render, summary_pairs
from stages.lib.reporting.study import Results, Size
from stages.lib.sources.reviews import read_reviews

HOSTILE = "<script>document.title = 'taken'</script><img src=http://192.0.2.1/x onerror=\"document.title='taken'\">"
FLIPS = pd.DataFrame(
    [
        (f"A fine film. {HOSTILE}", "positive", "positive", "negative", "lost"),
        ("Not so good.", "negative", "positive", "negative", "won"),
        ("It was <b>something</b>.", "other", "positive", "negative", "other"),
    ],
    columns=["text", "label", "original", "pruned", "kind"],
)
PAIRS = pd.DataFrame(
    [
        ("About the cat.", "The cat.", "The cat sat.", HOSTILE, 0.5, 0.1, "worse"),
        ("About the dog.", "The dog.", "No.", "The dog.", 0.0, 1.0, "better"),
        ("About rain.", "Rain.", "Wet.", "Wet.", 0.2, 0.2, "same"),
    ],
    columns=["text", "reference", "original", "pruned", "original_rouge", "pruned_rouge", "kind"],
)
VALUES = {"original": 9.5, "pruned": 12.0, "merged_2": 1.5e7}


def results(unrecovered: bool = False) -> Results:
    comparisons = [
        Comparison(
            figure,
            {model: Estimate(value, Interval(value * 0.9, value * 1.1)) for model, value in VALUES.items()},
            {("pruned", "original"): Change(12 / 9.5, None, PValue(0.0002, bound=True), PValue(0.0004, bound=True))},
            800,
            "800 items",
        )
        for figure in FIGURES
    ]
    sizes = {
        model: Size(total, total - 200, total - 5, stored)
        for model, total, stored in (("original", 900, 7), ("pruned", 1000, 60), ("merged_2", 800, 500))
    }
    before = {"pruned": Estimate(20.0, None)} if unrecovered else {}
    frontier = pd.DataFrame([("wanda", 0.25, 0, 750e6, 60, 12.0, 11.0, 13.0)], columns=list(COLUMNS))
    return Results(
        comparisons, sizes, before, frontier, SENSITIVITY, {"distilled": "There is <none>."}, 0.25, 1000, HARNESS
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    pictures = {name: ROOT / "report" / f"{name}.svg" for name in ("cost", "frontier", "sensitivity")}
    settings, times = {"cue": f"`a` {HOSTILE}"}, {"prune": {"seconds": 1.5, "peak_resident_mb": 1234}}
    path = folder / "index.html"
    path.write_text(render(results(), FLIPS, PAIRS, pictures, settings, times), encoding="utf-8")
    return path


class Tags(HTMLParser):
    """All tags, with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_text_from_data_is_escaped(page: Path) -> None:
    tags = Tags(page.read_text(encoding="utf-8")).found
    assert [tag for tag, _ in tags].count("script") == 1
    sources = [value or "" for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert sources
    assert all(value.startswith(("data:", "#")) for value in sources)
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_pictures_have_words_and_tables_have_headers(page: Path) -> None:
    tags = Tags(page.read_text(encoding="utf-8")).found
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 3
    assert all(len(image["alt"] or "") > 40 for image in images)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags if tag == "th")
    assert dict(tags)["html"] == {"lang": "en"}


def test_it_says_what_the_results_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Perplexity goes from 9.5 to 12.0 (× 1.26)" in text
    assert "There is &lt;none&gt;." in text
    assert "1.50e+07" in text
    assert "lost\n1 and won 1" in text
    assert "before recovery" not in text
    assert text.count("corrected p ≤ 0.0004") == len(FIGURES) - 2  # those in the table
    assert '<th scope="row" class="number">v_proj</th>' in text
    assert '<td class="number">0.400<span class="interval">± 0.049</span></td>' in text
    assert '<td class="number">750.0M</td>\n<td class="number">12.00<span class="interval">[11.00, 13.00]' in text


def test_flips_and_pairs_follow_from_the_predictions() -> None:
    reviews = pd.DataFrame({"document": ["a", "b", "c"], "text": ["one", "two", "x" * 700]})
    said = pd.DataFrame({"document": ["c", "a", "b"], "label": [1, 0, 1], "predicted": [1, 0, 0]})
    says = said.assign(predicted=[0, 0, 1])
    flips = flipped_reviews(reviews, said, says, ["bad", "good"])
    assert [*flips[["label", "original", "pruned", "kind"]].itertuples(index=False, name=None)] == [
        ("good", "good", "bad", "lost"),
        ("good", "bad", "good", "won"),
    ]
    assert flips["text"].iloc[0] == "x" * 600 + " …"
    documents = pd.DataFrame({"document": ["a", "b"], "text": ["long a", "long b"], "summary": ["a", "b"]})
    one = pd.DataFrame({"document": ["a", "b"], "summary": ["sa", "sb"], "rougeL": [0.5, 0.5]})
    other = pd.DataFrame({"document": ["b", "a"], "summary": ["tb", "ta"], "rougeL": [0.1, 0.6]})
    pairs = summary_pairs(documents, one, other)
    assert [*pairs[["text", "original", "pruned", "kind"]].itertuples(index=False, name=None)] == [
        ("long b", "sb", "tb", "worse"),
        ("long a", "sa", "ta", "better"),
    ]


def test_the_reviews_shown_are_those_that_were_scored(tmp_path: Path) -> None:
    """The page reads the test split; the ids would tell the reviews apart in any case."""
    for split in ("test", "train"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"text": f"{split} {n}", "label": n % 2} for n in range(4)])
    files = {split: [tmp_path / f"{split}.jsonl"] for split in ("test", "train")}
    write_rows(read_reviews(LocalReviews(source="local", path="unused"), files, seed=0), tmp_path)
    scored = read_rows(tmp_path, "test")
    right = scored[["document", "label"]].assign(predicted=scored["label"])
    wrong = right.assign(predicted=1 - right["label"])
    for rows in (scored, read_rows(tmp_path)):
        flips = flipped_reviews(rows, right, wrong, ["bad", "good"])
        assert sorted(flips["text"]) == [f"test {n}" for n in range(4)]
        assert [int(text[-1]) % 2 for text in flips["text"]] == [("bad", "good").index(x) for x in flips["label"]]


# In a browser.


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on this machine: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--force-prefers-reduced-motion"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    browser.set_window_size(1280, 900)
    browser.get(page.as_uri())
    return browser


def column(browser: webdriver.Chrome, number: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f"table.sortable tbody tr > :nth-child({number})")
    return [cell.text.split("\n")[0] for cell in cells][: len(VALUES)]


def shown(browser: webdriver.Chrome, table: str) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr")
    return [row.get_attribute("data-kind") or "" for row in rows if row.is_displayed()]


def test_no_error_and_no_request_leaves_the_page(opened: webdriver.Chrome, page: Path) -> None:
    messages = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [
        message["params"]["request"]["url"] for message in messages if message["method"] == "Network.requestWillBeSent"
    ]
    assert page.as_uri() in asked
    assert all(url == page.as_uri() or url.startswith("data:") for url in asked)
    assert [entry for entry in opened.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    assert opened.title == "What did pruning cost?"
    widths = opened.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 3
    assert all(width > 0 for width in widths)


def test_tables_sort(opened: webdriver.Chrome) -> None:
    headers = opened.find_elements(By.CSS_SELECTOR, "table.sortable thead th")
    assert column(opened, 1) == ["original", "pruned", "merged_2"]
    headers[1].find_element(By.TAG_NAME, "button").click()  # as numbers: as text, 1,000 comes before 800
    assert column(opened, 2) == ["800", "900", "1,000"]
    assert headers[1].get_attribute("aria-sort") == "ascending"
    headers[1].find_element(By.TAG_NAME, "button").click()
    assert column(opened, 2) == ["1,000", "900", "800"]
    assert headers[1].get_attribute("aria-sort") == "descending"
    headers[4].find_element(By.TAG_NAME, "button").send_keys("\n")  # the keyboard does it, too
    assert column(opened, 1) == ["original", "pruned", "merged_2"]
    assert headers[1].get_attribute("aria-sort") is None


def test_examples_are_filtered(opened: webdriver.Chrome) -> None:
    assert shown(opened, "review-rows") == ["lost", "won", "other"]
    form = opened.find_element(By.CSS_SELECTOR, "[data-table=review-rows]")
    form.find_element(By.TAG_NAME, "input").send_keys("FILM")
    assert shown(opened, "review-rows") == ["lost"]
    assert form.find_element(By.TAG_NAME, "output").text == "1 of 3 shown"
    form.find_element(By.TAG_NAME, "input").clear()
    form.find_element(By.TAG_NAME, "input").send_keys(" ")
    Select(form.find_element(By.TAG_NAME, "select")).select_by_visible_text("won")
    assert shown(opened, "review-rows") == ["won"]
    assert shown(opened, "summary-rows") == ["worse", "better", "same"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 900, 1600])
def test_nothing_is_cut_off_and_words_can_be_read(opened: webdriver.Chrome, width: int, scheme: str) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in ("p.answer", ".interval", "a", ".lost", ".won", "th button", "figcaption", "caption"):
        assert contrast(opened, selector) >= 4.5, selector  # WCAG 2.2, AA


def test_on_paper_it_is_not_a_telephone(opened: webdriver.Chrome) -> None:
    """A narrow page of paper has tables still, all of whose columns are there, and nothing to click."""
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 700, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    )
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    widths = opened.execute_script("return [...document.querySelectorAll('table')].map(table => table.scrollWidth)")
    display = opened.execute_script("return getComputedStyle(document.querySelector('.examples td')).display")
    clickable = [element.is_displayed() for element in opened.find_elements(By.CSS_SELECTOR, "nav, .filters")]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(widths) == 8
    assert all(0 < width <= 700 for width in widths)
    assert display == "table-cell"
    assert clickable == [False] * 3


def contrast(browser: webdriver.Chrome, selector: str) -> float:
    """The contrast of an element's words with what is behind them."""
    ink, paper = browser.execute_script(
        """
        const start = document.querySelector(arguments[0]);
        let behind = start;
        while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        const parts = (element, name) => getComputedStyle(element)[name].match(/[0-9.]+/g).map(Number);
        return [parts(start, "color"), parts(behind || document.body, "backgroundColor")];
        """,
        selector,
    )
    one, other = sorted((luminance(ink), luminance(paper)))
    return (other + 0.05) / (one + 0.05)


def luminance(colour: list[float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
