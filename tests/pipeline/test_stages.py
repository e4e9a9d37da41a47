"""All stages in a row, for several architectures and the settings that the committed params do not use."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from architectures import BLOCKS, PRUNABLE, tiny
from conftest import Finished, changed_params, make_project, train_tokenizer, write_params
from transformers import PreTrainedTokenizerFast

RunStage = Callable[..., Finished]
VARIANTS = ["merged_1", "merged_2-anchor", "compressed_1", "compressed_2", "pruned-tied-head", "distilled"]
OTHERS = {
    "compare.variants": VARIANTS,
    "distilled": {"source": "local", "path": "mine/model"},  # a sibling that is no other model
}
MEASURES = ("perplexity", "classify", "summarize", "size")


def metric(name: str) -> dict[str, float]:
    content: dict[str, float] = json.loads(Path(f"metrics/{name}.json").read_text())
    return content


def run_all(run_stage: RunStage, variants: Sequence[str] = VARIANTS) -> None:
    stages = [("download", item) for item in ("model", "distilled", "text", "reviews", "documents")]
    stages += [("baseline_ppl",), ("prune",), ("recover",), ("post_ppl",)]
    stages += [(stage, model) for stage in ("classify", "summarize") for model in ("original", "pruned")]
    stages += [("shrink",), *((stage, variant) for stage in ("recover_others", "compare") for variant in variants)]
    stages += [("measure", model) for model in ("original", "pruned", *variants)]
    stages += [("sensitivity",)]
    for stage in [*stages, ("report",)]:
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err


NO_DISTANCE = {"kl_divergence": 0, "same_top": 1, "flips": 0, "lost": 0, "gained": 0}


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "changes",
    [
        {"classify.mode": "all", "classify.epochs": 2},
        {"compute.dtype": "bfloat16"},
        {"summarize.num_beams": 2, "summarize.no_repeat_ngram_size": 2, "summarize.order": "first"},
    ],
    ids=["fine-tuned", "bfloat16", "beams"],
)
def test_nothing_pruned_costs_nothing(
    tmp_path: Path,
    tiny_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    run_stage: RunStage,
    family: str,
    changes: dict[str, Any],
) -> None:
    make_project(tmp_path, tiny_folders[family])
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, changed_params({**changes, **OTHERS, "prune.sparsity": 0}))
    run_all(run_stage)
    # Other stages run these models, and nothing was changed in them.
    for model in ("pruned", "merged_1", "compressed_1", "distilled"):
        for measure in MEASURES:
            found, expected = metric(f"{measure}/{model}"), metric(f"{measure}/original")
            if measure == "size":
                assert found.pop("stored_bytes") < expected.pop("stored_bytes")
            for key, none in NO_DISTANCE.items():
                assert found.pop(key, none) == none, (key, model)
                for end in ("low", "high"):
                    found.pop(f"{key}_{end}", None)
            assert found == expected, (measure, model)
        assert {"kl_divergence", "same_top"} <= metric(f"perplexity/{model}").keys()
    assert metric("size/pruned")["pruned_weights"] == 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_everything_pruned_leaves_nothing_of_the_blocks(
    tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, run_stage: RunStage, family: str
) -> None:
    make_project(tmp_path, tiny_folders[family])
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, changed_params({**OTHERS, "prune.sparsity": 0.99999}))
    run_all(run_stage)
    counts = metric("size/pruned")
    assert counts["pruned_weights"] == counts["prunable_weights"]
    assert metric("perplexity/pruned")["perplexity"] != metric("perplexity/original")["perplexity"]
    assert metric("perplexity/pruned")["tokens"] == metric("perplexity/original")["tokens"]


STUDY = {
    "prune.method": "wanda",
    "prune.budget": "owl",
    "recover.steps": 3,
    "classify.mode": "all",
    "compare.variants": ["merged_2", "compressed_2", "pruned-tied-head"],
}
ABSENT = {
    "mixtral": {
        "merged_2": "Its feed-forwards cannot be merged: model.layers.0 has experts.",
        "pruned-tied-head": "Its head is not tied to the token embedding.",
    },
    "opt": {},
}
"""By architecture, the models that it cannot be made into, and why."""


@pytest.mark.parametrize("model_type", ["mixtral", "opt"])
def test_a_model_of_another_architecture(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    run_stage: RunStage,
    model_type: str,
) -> None:
    """Experts with other names in the file than in the model; features that are narrower than the hidden states."""
    model = tmp_path / "model"
    tiny(model_type).save_pretrained(model)
    tokenizer.save_pretrained(model)
    make_project(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, changed_params(STUDY))
    run_all(run_stage, STUDY["compare.variants"])
    counts = metric("size/pruned")
    assert counts["prunable_weights"] == BLOCKS * PRUNABLE[model_type]
    assert counts["pruned_weights"] == round(0.3 * counts["prunable_weights"])  # after recovery
    report = Path("report/report.md").read_text()
    for name in STUDY["compare.variants"]:
        for measure in MEASURES:
            expected = set() if name in ABSENT[model_type] else metric(f"{measure}/original").keys()
            assert expected <= metric(f"{measure}/{name}").keys()
        assert (f"{name}: not measured." in report) == (name in ABSENT[model_type])
    for name, reason in ABSENT[model_type].items():
        assert metric(f"perplexity/{name}") == {}
        assert f"{name}: not measured. {reason}" in report
        finished = run_stage("export", "out", "--model", name)
        assert (
            finished.err
            == f"error: export: data/recovered/{name}: there is no such model. {reason} Choose another one\n"
        )
    assert metric("perplexity/pruned")["perplexity"] != metric("perplexity/original")["perplexity"]


def test_a_model_of_another_tokenizer_has_no_distance(
    tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, run_stage: RunStage
) -> None:
    make_project(tmp_path, tiny_folders["llama"])
    monkeypatch.chdir(tmp_path)
    tiny("gpt2").save_pretrained("mine/other")
    train_tokenizer(280).save_pretrained("mine/other")
    distilled = {"source": "local", "path": "mine/other"}
    write_params(tmp_path, changed_params({"compare.variants": ["distilled", "compressed_2"], "distilled": distilled}))
    run_all(run_stage, ["distilled", "compressed_2"])
    found, original = metric("perplexity/distilled"), metric("perplexity/original")
    assert found["tokens"] != original["tokens"]
    assert not {"kl_divergence", "same_top"} & found.keys()
    assert metric("classify/distilled")["flips"] >= 0
    changes = pd.read_csv("metrics/changes.csv")
    compared = changes.groupby("model")["measure"].agg(set)
    assert not {"perplexity", "bits_per_byte", "kl_divergence", "same_top"} & compared["distilled"]
    assert {"accuracy", "flips", "rougeL"} <= compared["distilled"]
    assert {"perplexity", "kl_divergence", "same_top"} <= compared["compressed_2"]
    rows = [line for line in Path("report/report.md").read_text().splitlines() if line.startswith("| distilled |")]
    assert "another tokenizer" in rows[0]  # in the table of all models


@pytest.mark.parametrize("error", ["RuntimeError", "UserError"])
def test_an_interrupt_that_is_made_an_error_of(project: Path, error: str) -> None:
    script = f"""
import argparse, os, signal
from stages.lib.plumbing import command
from stages.lib.files.errors import UserError

def main(arguments):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise {error}("an import failed") from None

signal.signal(signal.SIGINT, signal.default_int_handler)
command.run("prune", main, argparse.ArgumentParser())
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 130
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: prune: interrupted; `dvc repro` resumes from here")
