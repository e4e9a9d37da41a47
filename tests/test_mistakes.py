"""The scripts that measure the published study's mistakes: each shows its own effect, and only that."""

import re
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Finished

from stages.lib.files.parquet import read_table
from stages.lib.files.places import predictions_path

Measured = Callable[..., dict[str, str]]


@pytest.fixture
def measured(
    project: Path,
    run_stage: Callable[..., Finished],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Measured:
    """Runs a script in the tiny project; what it says for each way."""
    for item in ("model", "text", "reviews", "documents"):
        assert run_stage("download", item).status == 0
    assert run_stage("prune").status == 0
    assert run_stage("recover").status == 0

    def run(name: str, *arguments: str) -> dict[str, str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, about a module that is loaded already
            runpy.run_module(f"benchmarks.mistakes.{name}", run_name="__main__")
        lines = capfd.readouterr().out.splitlines()
        return {way: line for line in lines for way in ("as here", "as published") if f" {way} " in line}

    return run


def number(line: str, pattern: str) -> float:
    found = re.search(pattern, line)
    assert found, line
    return float(found[1].replace(",", ""))


def test_lines_of_128_lose_their_first_tokens(measured: Measured) -> None:
    found = measured("lines_of_128")
    assert "windows of 64" in found["as here"]
    assert "windows of 128" in found["as published"]
    assert number(found["as here"], r"([\d,]+) tokens") != number(found["as published"], r"([\d,]+) tokens")


def test_pads_are_counted_only_by_mistake(measured: Measured) -> None:
    found = measured("pads_as_labels")
    assert "0% of them pads" in found["as here"]
    labels = [number(found[way], r"([\d,]+) labels") for way in ("as here", "as published")]
    assert labels[1] % 127 == 0  # whole lines
    assert labels[0] < labels[1]
    assert number(found["as here"], r"perplexity ([\d.]+)") != number(found["as published"], r"perplexity ([\d.]+)")


def test_the_prompt_is_scored_only_by_mistake(measured: Measured) -> None:
    found = measured("prompt_in_rouge")
    # The tiny model adds noise, the document shares words with its summary.
    assert number(found["as published"], r"ROUGE-L ([\d.]+)") > number(found["as here"], r"ROUGE-L ([\d.]+)")


def test_a_pad_is_read_only_by_mistake(measured: Measured, run_stage: Callable[..., Finished]) -> None:
    found = measured("pad_position", "--model", "original")
    assert run_stage("classify", "original").status == 0
    accuracy = read_table(predictions_path("classify", "original"))["right"].mean()
    assert number(found["as here"], r"accuracy ([\d.]+)") == pytest.approx(accuracy, abs=1e-4)
    assert found["as published"] != found["as here"]


def test_weights_come_back_only_where_the_mask_is_not_held(measured: Measured) -> None:
    found = measured("mask_not_held")
    for way, grows in (("as here", False), ("as published", True)):
        before, after = (number(found[way], rf"([\d,]+) {when}") for when in ("before", "after"))
        assert (after > before) == grows
    # What is pruned at the start is the same.
    assert number(found["as here"], r"([\d,]+) before") == number(found["as published"], r"([\d,]+) before")


@pytest.mark.parametrize(("way", "shown"), [("right", "as here"), ("mistaken", "as published")])
def test_one_way_alone(measured: Measured, way: str, shown: str) -> None:
    assert list(measured("lines_of_128", "--way", way)) == [shown]
