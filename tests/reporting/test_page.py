"""The page: what it says, that text from data is escaped, and that it works in a real browser."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import HARNESS, SENSITIVITY, write_jsonl
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from stages.lib.figures.comparison import Change, Comparison
from stages.lib.figures.definitions import FIGURES, Estimate
from stages.lib.figures.statistics import Interval, PValue
from stages.lib.figures.tables import COLUMNS
from stages.lib.files.rows import read_rows, write_rows
from stages.lib.plumbing.items import LocalReviews
from stages.lib.reporting.examples import (
    AFTER,
    BEFORE,
    SHOWN_TOKENS,
    Examples,
    changed_tokens,
    flipped_reviews,
    in_context,
    percentiles,
    summary_pairs,
)
from stages.lib.reporting.page import render
from stages.lib.reporting.pictures import draw
from stages.lib.reporting.study import Results, Size
from stages.lib.reporting.wording import IN_THE_TABLE
from stages.lib.sources.reviews import read_reviews

HOSTILE = "<script>document.title = 'taken'</script><img src=http://192.0.2.1/x onerror=\"document.title='taken'\">"
TOKENS = pd.DataFrame(
    [
        ("a cat\n\n", " sat", " on the mat.", 4.5, " sat", HOSTILE, 0.9, 0.0123, "flipped"),
        (HOSTILE, "é", "", 12.25, "\n", "\n", 1e-7, 0.5, "same top"),
    ],
    columns=["before", "token", "after", "kl", "original_top", "pruned_top", "original_p", "pruned_p", "kind"],
)
FLIPS = pd.DataFrame(
    [
        (f"A fine film. {HOSTILE}", "positive", "positive", "negative", "lost"),
        ("Not so good.", "negative", "positive", "negative", "gained"),
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
RATIOS = {"ratio": [1.1, 1.3], "ratio_low": [1.0, 1.2], "ratio_high": [1.2, 1.5]}
DRAWN_SENSITIVITY = {
    "sparsities": pd.DataFrame({"sparsity": [0.3, 0.5], **RATIOS}),
    "matrices": pd.DataFrame({"matrix": ["mlp.up_proj", "self_attn.v_proj"], **RATIOS}),
    "blocks": pd.DataFrame({"block": [0, 1], **RATIOS}),
}


def results(unrecovered: bool = False) -> Results:
    p = PValue(0.0002, bound=True), PValue(0.0004, bound=True)
    comparisons = [
        Comparison(
            figure,
            {
                model: Estimate(value, Interval(value * 0.9, value * 1.1))
                for model, value in VALUES.items()
                if not (figure.distance and model in ("original", "merged_2"))
            },
            {} if figure.distance else {("pruned", "original"): Change(12 / 9.5, None, *p)},
            800,
            "800 items",
            0.5,
            "most frequent class",
        )
        for figure in FIGURES
    ]
    sizes = {
        model: Size(total, total - 200, total - 5, 2 * total, stored)
        for model, total, stored in (("original", 900, 7), ("pruned", 1000, 60), ("merged_2", 800, 500))
    }
    before = {"pruned": Estimate(20.0, None)} if unrecovered else {}
    frontier = pd.DataFrame([("wanda", 0.25, 0, 750e6, 60, 12.0, 11.0, 13.0)], columns=list(COLUMNS))
    absent, no_distance = {"distilled": "There is <none>."}, {"merged_2": "another tokenizer"}
    return Results(comparisons, sizes, before, frontier, SENSITIVITY, absent, no_distance, 0.25, 1000, HARNESS)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    drawn = replace(results(), sensitivity=DRAWN_SENSITIVITY)
    pictures, narrow = (draw(drawn, 0.25, folder / name, narrow=name == "narrow") for name in ("wide", "narrow"))
    settings = {"cue": f"`a` {HOSTILE}", "seed": "0"}
    times = {stage: {"seconds": seconds, "peak_resident_mb": 1234} for stage, seconds in (("prune", 1.5), ("all", 20))}
    examples = Examples([0.5, 1.5, 2.5], TOKENS, FLIPS, PAIRS)
    path = folder / "index.html"
    path.write_text(render(results(), examples, pictures, narrow, settings, times), encoding="utf-8")
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
    addresses = ("src", "href", "srcset")
    sources = [value or "" for _, attributes in tags for name, value in attributes.items() if name in addresses]
    assert sources
    assert all(value.startswith(("data:", "#")) for value in sources)
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]


def test_pictures_have_words_and_tables_have_headers(page: Path) -> None:
    tags = Tags(page.read_text(encoding="utf-8")).found
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) == 4
    assert all(len(image["alt"] or "") > 40 for image in images)
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags if tag == "th")
    assert dict(tags)["html"] == {"lang": "en"}


def test_it_says_what_the_results_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Perplexity goes from 9.5 to 12.0 (× 1.26)" in text
    assert "There is &lt;none&gt;." in text
    assert "1.50e+07" in text
    assert "disagree on 3 of 800 items: pruning lost 1 and gained 1." in text
    assert "below 0.5 nats for half of the tokens (the median), below 1.5 for 95 % and below 2.5 for 99 %" in text
    assert "…a cat↵↵<mark> sat</mark> on the mat.…" in text
    assert "before recovery" not in text
    scores = [figure for figure in FIGURES if figure.key in IN_THE_TABLE and not figure.distance]
    assert text.count("corrected p ≤ 0.0004") == len(scores)
    assert '<th scope="row">v_proj</th>' in text
    assert text.count('<td class="number">another tokenizer</td>') == 3  # in three columns
    assert '<td class="number">0.400 ± 0.049</td>' in text
    assert "25.0%, 750.0M ↓" in text
    assert '<th scope="row">wanda</th>\n<td class="number">12.00<span class="interval">[11.00, 13.00]' in text


def test_flips_and_pairs_follow_from_the_predictions() -> None:
    reviews = pd.DataFrame({"document": ["a", "b", "c"], "text": ["one", "two", "x" * 700]})
    said = pd.DataFrame({"document": ["c", "a", "b"], "label": [1, 0, 1], "predicted": [1, 0, 0], "right": [1, 1, 0]})
    says = said.assign(predicted=[0, 0, 1], right=[0, 1, 1])
    flips = flipped_reviews(reviews, said, says, ["bad", "good"])
    assert [*flips[["label", "original", "pruned", "kind"]].itertuples(index=False, name=None)] == [
        ("good", "good", "bad", "lost"),
        ("good", "bad", "good", "gained"),
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


@given(st.lists(st.text(st.sampled_from("aé€😀 \n"), min_size=1, max_size=60), min_size=1, max_size=9), st.data())
def test_a_token_is_marked_in_its_text(tokens: list[str], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(tokens) - 1))
    ends = np.cumsum([len(token.encode()) for token in tokens])
    before, token, after = in_context("".join(tokens).encode(), int(ends[number]), len(tokens[number].encode()))
    assert token == tokens[number]
    assert before == "".join(tokens[:number])[-BEFORE:]
    assert after == "".join(tokens[number + 1 :])[:AFTER]


@pytest.mark.parametrize(("end", "length"), [(3, 2), (3, 1), (4, 1), (5, 4), (5, 0)])
def test_a_token_that_is_part_of_a_character_is_shown_as_the_whole(end: int, length: int) -> None:
    """😀 has the bytes 1 to 4 of this text; if several tokens make it up, one may have all bytes and others none."""
    assert in_context("a😀b".encode(), end, length) == ("a", "😀", "b")


def test_the_tokens_shown_are_those_with_the_largest_divergence() -> None:
    text = "".join(f"w{number} " for number in range(90))
    lengths = [len(f"w{number} ") for number in range(90)]
    rng = np.random.default_rng(0)
    original = pd.DataFrame(
        {"end": np.cumsum(lengths), "bytes": lengths, "nll": rng.gamma(2, size=90)}, index=range(5, 95)
    )
    tops: dict[str, list[float] | list[str]] = {
        "same_top": [1.0, 0.0] * 45,
        "top": ["x"] * 90,
        "original_top": ["x", "y"] * 45,
    }
    pruned = original.reset_index(drop=True).assign(nll=rng.gamma(3, size=90), kl=rng.gamma(1, size=90), **tops)
    found = changed_tokens(text, original, pruned)
    order = sorted(range(90), key=lambda number: -pruned["kl"][number])[:SHOWN_TOKENS]
    assert [*found["token"]] == [f"w{number} " for number in order]
    assert found["kl"].to_numpy() == pytest.approx(pruned["kl"].to_numpy()[order])
    for model, table in (("original", original), ("pruned", pruned)):
        assert found[f"{model}_p"].to_numpy() == pytest.approx(np.exp(-table["nll"].to_numpy()[order]))
    assert [*found["kind"]] == [("same top", "flipped")[number % 2] for number in order]
    assert [*found["original_top"]] == ["xy"[number % 2] for number in order]
    assert percentiles(pruned) == pytest.approx(np.percentile(pruned["kl"], [50, 95, 99]))


def test_the_reviews_shown_are_those_that_were_scored(tmp_path: Path) -> None:
    """The page reads the test split; the ids would tell the reviews apart in any case."""
    for split in ("test", "train"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"text": f"{split} {n}", "label": n % 2} for n in range(4)])
    files = {split: [tmp_path / f"{split}.jsonl"] for split in ("test", "train")}
    write_rows(read_reviews(LocalReviews(source="local", path="unused"), files, seed=0), tmp_path)
    scored = read_rows(tmp_path, "test")
    right = scored[["document", "label"]].assign(predicted=scored["label"], right=1.0)
    wrong = right.assign(predicted=1 - right["label"], right=0.0)
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


def set_screen(browser: webdriver.Chrome, width: int, scheme: str = "light") -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )


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
    assert len(widths) == 4
    assert all(width > 0 for width in widths)


def cells(table: WebElement, number: int) -> list[str]:
    """The texts of a column."""
    found = table.find_elements(By.CSS_SELECTOR, f"tbody tr > :nth-child({number})")
    return [(cell.get_attribute("textContent") or "").strip() for cell in found]


def number_in(cell: str) -> float | None:
    """The figure at the beginning of a cell, without its interval."""
    found = re.match(r"-?[\d,.]+(e[+-]?\d+)?", cell)
    return float(found[0].replace(",", "")) if found else None


@pytest.mark.parametrize("width", [400, 1280])
def test_every_column_of_every_table_sorts(opened: webdriver.Chrome, width: int) -> None:
    set_screen(opened, width)
    tables = opened.find_elements(By.TAG_NAME, "table")
    assert len(tables) == 10
    for table in tables:
        headers = table.find_elements(By.CSS_SELECTOR, "thead th")
        for number, header in enumerate(headers, start=1):
            button, before = header.find_element(By.TAG_NAME, "button"), sorted(cells(table, number))
            for order, keys in (("ascending", "\n"), ("descending", " ")):  # as a keyboard presses a button
                button.send_keys(keys)
                assert header.get_attribute("aria-sort") == order
                assert [other.get_attribute("aria-sort") for other in headers].count(None) == len(headers) - 1
                shown = cells(table, number)
                assert sorted(shown) == before
                if "number" in (header.get_attribute("class") or "") and header.text.strip("⇅▲▼\xa0") != "ROUGE-L":
                    values = [number_in(cell) for cell in shown]
                    numbers = [value for value in values if value is not None]
                    assert values == numbers + [None] * (len(values) - len(numbers))  # cells without one are last
                else:
                    numbers = []
                assert numbers == sorted(numbers, reverse=order == "descending")


def test_columns_sort_by_their_numbers_and_names_by_theirs(opened: webdriver.Chrome) -> None:
    """As texts, 1,000 comes before 800; of summaries, the change in ROUGE-L is what tells them apart."""
    table = opened.find_element(By.XPATH, "//table[caption[starts-with(., 'Parameters')]]")
    names, parameters, *_ = table.find_elements(By.CSS_SELECTOR, "thead button")
    assert cells(table, 1) == ["original", "pruned", "merged_2"]
    parameters.click()
    assert cells(table, 2) == ["800", "900", "1,000"]
    parameters.click()
    assert cells(table, 2) == ["1,000", "900", "800"]
    names.click()
    assert cells(table, 1) == ["merged_2", "original", "pruned"]
    summaries = opened.find_element(By.ID, "summary-rows")
    summaries.find_elements(By.CSS_SELECTOR, "thead button")[-1].click()
    assert shown(opened, "summary-rows") == ["worse", "same", "better"]


def test_examples_are_filtered(opened: webdriver.Chrome) -> None:
    assert shown(opened, "review-rows") == ["lost", "gained", "other"]
    form = opened.find_element(By.CSS_SELECTOR, "[data-table=review-rows]")
    form.find_element(By.TAG_NAME, "input").send_keys("FILM")
    assert shown(opened, "review-rows") == ["lost"]
    assert form.find_element(By.TAG_NAME, "output").text == "1 of 3 shown"
    form.find_element(By.TAG_NAME, "input").clear()
    form.find_element(By.TAG_NAME, "input").send_keys(" ")
    Select(form.find_element(By.TAG_NAME, "select")).select_by_visible_text("gained")
    assert shown(opened, "review-rows") == ["gained"]
    tokens = opened.find_element(By.CSS_SELECTOR, "[data-table=token-rows]")
    Select(tokens.find_element(By.TAG_NAME, "select")).select_by_visible_text("same top")
    assert shown(opened, "token-rows") == ["same top"]
    assert shown(opened, "summary-rows") == ["worse", "better", "same"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 400, 900, 961, 1600])
def test_nothing_is_cut_off_and_words_can_be_read(opened: webdriver.Chrome, width: int, scheme: str) -> None:
    set_screen(opened, width, scheme)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    overfull = opened.execute_script(
        "return [...document.querySelectorAll('th')].filter(cell => cell.scrollWidth > cell.clientWidth + 1).length"
    )
    assert overfull == 0
    words = ("p.answer", ".interval", "a", ".lost", ".gained", "th button", "figcaption", "caption", "mark", ".written")
    for selector in words:
        assert contrast(opened, selector) >= 4.5, selector  # WCAG 2.2, AA


@pytest.mark.parametrize("width", [400, 831, 833, 1400])
def test_letters_in_pictures_are_large_enough(opened: webdriver.Chrome, width: int) -> None:
    """A picture's letters are glyphs of 100 units, each text with a scale; a point is 4/3 pixels."""
    set_screen(opened, width)
    opened.refresh()  # it chooses its pictures before it has loaded
    images = opened.find_elements(By.CSS_SELECTOR, "figure img")
    for image in images:
        address, drawn, natural = opened.execute_script(
            "const i = arguments[0]; return [i.currentSrc, i.clientWidth, i.naturalWidth]", image
        )
        svg = base64.b64decode(address.split(",")[1]).decode()
        sizes = [100 * float(scale) for scale in re.findall(r"scale\(([\d.]+) -[\d.]+\)", svg)]
        assert len(sizes) > 5
        assert min(sizes) * 4 / 3 * drawn / natural >= 9


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_pictures_have_the_pages_background_and_stand_out(opened: webdriver.Chrome, width: int, scheme: str) -> None:
    set_screen(opened, width, scheme)
    opened.refresh()
    behind = opened.execute_script(
        "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)"
    )
    for image in opened.find_elements(By.CSS_SELECTOR, "figure img"):
        opened.execute_script("arguments[0].scrollIntoView()", image)
        pixels = np.asarray(Image.open(io.BytesIO(image.screenshot_as_png)).convert("RGB"))
        colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
        assert np.abs(colours[counts.argmax()].astype(int) - behind).max() <= 2
        assert max(ratio(luminance(colour), luminance(behind)) for colour in colours.tolist()) >= 12  # the letters


def test_on_paper_it_is_not_a_telephone(opened: webdriver.Chrome) -> None:
    """A narrow page of paper has tables still, all of whose columns are there, and nothing to click."""
    set_screen(opened, 700)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    widths = opened.execute_script("return [...document.querySelectorAll('table')].map(table => table.scrollWidth)")
    display = opened.execute_script("return getComputedStyle(document.querySelector('.examples td')).display")
    clickable = [element.is_displayed() for element in opened.find_elements(By.CSS_SELECTOR, "nav, .filters")]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert len(widths) == 10
    assert all(0 < width <= 700 for width in widths)
    assert display == "table-cell"
    assert clickable == [False] * 4


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
    return ratio(luminance(ink), luminance(paper))


def ratio(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def luminance(colour: list[float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
