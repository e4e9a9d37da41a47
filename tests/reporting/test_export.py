"""The exported model: plain transformers loads it, zeros in place, and its card holds the metrics."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CPU, Finished, changed_params, load, write_params
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.lib.figures.definitions import UNRECOVERED
from stages.lib.files.parquet import read_table
from stages.lib.files.places import metrics_path, predictions_path
from stages.lib.plumbing.params import Params
from stages.lib.pruning.methods import METHODS
from stages.lib.reporting.exporting import render

RunStage = Callable[..., Finished]


@pytest.fixture
def pruned(project: Path, run_stage: RunStage) -> Path:
    downloads = ("download", "model"), ("download", "text")
    for stage in (*downloads, ("baseline_ppl",), ("prune",), ("recover",), ("post_ppl",)):
        assert run_stage(*stage).status == 0
    return project


def test_plain_transformers_loads_it(pruned: Path, run_stage: RunStage) -> None:
    assert run_stage("export", "out").status == 0
    model = AutoModelForCausalLM.from_pretrained("out")
    recipe = load(Path("data/model"), Path("data/recovered/pruned"), CPU)
    counts = read_table(predictions_path("size", "pruned")).iloc[0]
    for (name, exported), (_, expected) in zip(model.named_parameters(), recipe.model.named_parameters(), strict=True):
        assert torch.equal(exported, expected), name
    effective = sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert effective == counts["effective_parameters"]
    ids = AutoTokenizer.from_pretrained("out")("the cat", return_tensors="pt")
    torch.testing.assert_close(model(**ids).logits, recipe.model(**ids).logits)


def test_the_card_holds_the_measured_numbers(pruned: Path, run_stage: RunStage) -> None:
    assert run_stage("export", "out").status == 0
    card = Path("out/README.md").read_text()
    assert "| nothing yet | |" in card  # nothing was measured
    size = {"total_parameters": 28832, "effective_parameters": 23270, "sparsity": 0.300022}
    for measure, figures in (("size", size), ("perplexity", {"perplexity": 567.227, "tokens": 1334})):
        path = metrics_path(measure, "pruned")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(figures))
    assert run_stage("export", "out", "--overwrite").status == 0
    card = Path("out/README.md").read_text()
    for value in (28832, 23270, 0.300022, 567.227, 1334):
        assert f"| {value:,} |" in card
    assert "accuracy" not in card


@pytest.mark.parametrize("method", [method.name for method in METHODS])
def test_the_card_says_what_was_done(method: str) -> None:
    params = Params.model_validate(changed_params({"prune.method": method, "recover.steps": 1500}))
    card = render("pruned", params, {UNRECOVERED.key: 9.5, "perplexity": 8.25})
    assert method in card.lower().replace("at random", "random")
    assert "trained for 1,500 steps of 32 tokens, towards the predictions of the original" in card
    assert "| perplexity before recovery | 9.5 |" in card
    assert "trained" not in render("original", params, {})


def test_the_card_says_what_was_updated_and_trained() -> None:
    pruning = {"prune.method": "kfac", "prune.shots": 3, "prune.update": "outputs"}
    changes = {**pruning, "recover.steps": 2, "recover.weights": "norms"}
    card = render("pruned", Params.model_validate(changed_params(changes)), {})
    assert "It was pruned in 3 shots. In the end, the remaining weights were set to the " in card
    assert "values that keep each matrix's outputs on calibration text closest to the original's" in card
    assert "2 steps of 32 tokens, norms and biases alone, towards the predictions of the original" in card
    budget = {"prune.method": "wanda", "prune.budget": "owl"}
    assert "(`prune.budget: owl`)" in render("pruned", Params.model_validate(changed_params(budget)), {})


def test_the_original_is_exported_as_it_is(pruned: Path, run_stage: RunStage) -> None:
    assert run_stage("export", "--model", "original", "out").status == 0
    dense = AutoModelForCausalLM.from_pretrained("mine/model")
    for name, parameter in AutoModelForCausalLM.from_pretrained("out").named_parameters():
        assert torch.equal(parameter, dense.get_parameter(name))


@pytest.mark.parametrize("variant", ["merged_2", "merged_2-anchor", "compressed_2", "pruned-tied-head", "distilled"])
def test_every_model_of_the_study_is_exported(project: Path, run_stage: RunStage, variant: str) -> None:
    distilled = {"source": "local", "path": "mine/model"}
    write_params(project, changed_params({"compare.variants": [variant], "distilled": distilled}))
    downloads = (("download", item) for item in ("model", "distilled", "text"))
    for stage in (*downloads, ("shrink",), ("recover_others", variant)):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    assert run_stage("export", "--model", variant, "out").status == 0
    model, info = AutoModelForCausalLM.from_pretrained("out", output_loading_info=True)
    assert not any(info.values())
    recipe = load(Path("data/model"), Path("data/recovered") / variant, CPU)
    assert model.config.num_hidden_layers == (1 if variant == "compressed_2" else 2)
    for name, exported in model.named_parameters():
        assert torch.equal(exported, recipe.model.get_parameter(name)), name
    assert f"# {variant}" in Path("out/README.md").read_text()


def test_a_model_that_is_not_there(pruned: Path, run_stage: RunStage) -> None:
    finished = run_stage("export", "--model", "merged_7", "out")
    assert finished.status == 2
    expected = "error: export: --model: got 'merged_7', takes original, pruned, merged_2, compressed_2"
    assert finished.err.splitlines() == [expected]


def test_a_folder_that_is_not_empty_is_kept(pruned: Path, run_stage: RunStage) -> None:
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("mine")
    for arguments, says in (((), "is not empty"), (("--overwrite",), "holds something other than a model")):
        finished = run_stage("export", "out", *arguments)
        assert finished.status == 1
        assert finished.err.startswith(f"error: export: out: {says}; give another folder")
        assert [path.name for path in Path("out").iterdir()] == ["thesis.txt"]


def test_an_earlier_export_is_replaced_where_told_to(pruned: Path, run_stage: RunStage) -> None:
    assert run_stage("export", "out").status == 0
    Path("out/old.txt").write_text("x")
    assert run_stage("export", "out").status == 1
    assert Path("out/old.txt").exists()
    assert run_stage("export", "out", "--overwrite").status == 0
    assert not Path("out/old.txt").exists()
    assert Path("out/model.safetensors").is_file()


def test_an_empty_folder_is_used(pruned: Path, run_stage: RunStage) -> None:
    Path("out").mkdir()
    assert run_stage("export", "out").status == 0


@pytest.mark.parametrize("target", [".", "..", "data/pruned", "data/new", "data", "metrics", "stages", "mine/text.txt"])
def test_the_pipelines_own_folders_are_refused(pruned: Path, run_stage: RunStage, target: str) -> None:
    before = sorted(Path().rglob("*"))
    finished = run_stage("export", target, "--overwrite")
    assert finished.status == 1
    assert len(finished.err.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


def test_a_failed_export_leaves_nothing(pruned: Path, run_stage: RunStage) -> None:
    recipe = Path("data/recovered/pruned/recipe.json")
    recipe.write_text(recipe.read_text().replace('"pruned": ', '"pruned": 1'))
    finished = run_stage("export", "out")
    assert finished.status == 1
    assert "the mask is not the recipe's" in finished.err
    assert not Path("out").exists()
