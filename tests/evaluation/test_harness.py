"""The stage `harness` on task files of one's own: figures against plain loops and this project's own likelihoods."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import (
    CPU,
    ROLLING_TASK,
    ROOT,
    Finished,
    changed_params,
    framing,
    load,
    make_project,
    prose,
    write_jsonl,
    write_params,
)
from repository import Repository, ran
from transformers import PreTrainedTokenizerFast

from stages.lib.evaluation import harness
from stages.lib.evaluation.harness_model import HarnessModel
from stages.lib.evaluation.perplexity import score
from stages.lib.figures.harness import harness_figures, read_harness
from stages.lib.files.errors import UserError
from stages.lib.files.parquet import absent_table, read_table, write_table
from stages.lib.files.places import harness_folder
from stages.lib.inference.likelihood import losses_within
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Harness, Perplexity
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.recipe import write_recipe
from stages.lib.reporting.wording import harness_caption, harness_rows

RunStage = Callable[..., Finished]

KINDS: dict[str, tuple[list[str], list[str]]] = {"none": ([], []), "first": (["<s>"], []), "both": (["<s>"], ["</s>"])}
"""The special tokens that a tokenizer puts before each text, and after it."""

CHOICES = """
task: choices
tag: mine
dataset_path: json
dataset_kwargs: {data_files: {test: mine/reviews.jsonl, train: mine/examples.jsonl}}
output_type: multiple_choice
test_split: test
fewshot_split: train
doc_to_text: "Review: {{text}} It was"
doc_to_choice: [negative, positive]
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.5}
"""
PAIR = """
group: pair
task: [choices, others]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""
OTHERS = CHOICES.replace("task: choices", "task: others").replace("It was", "I am")


def write_tasks(project: Path) -> None:
    folder = project / "mine" / "tasks"
    folder.mkdir()
    for name, text in {"choices": CHOICES, "lines": ROLLING_TASK, "pair": PAIR, "others": OTHERS}.items():
        (folder / f"{name}.yaml").write_text(text)
    examples = [{"text": prose(6, 900 + row), "label": ("negative", "positive")[row % 2]} for row in range(9)]
    write_jsonl(project / "mine" / "examples.jsonl", examples)


def with_harness(project: Path, **settings: Any) -> None:
    changes = {"models": ["original", "pruned"], "tasks": ["choices", "lines"], "path": "mine/tasks", **settings}
    write_params(project, changed_params({f"harness.{key}": value for key, value in changes.items()}))


@pytest.fixture
def own(project: Path, run_stage: RunStage) -> Path:
    """The tiny project with task files and a model."""
    write_tasks(project)
    with_harness(project)
    assert run_stage("download", "model").status == 0
    return project


@pytest.fixture(params=KINDS)
def framed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_folders: dict[str, Path],
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    run_stage: RunStage,
) -> Loaded:
    """The tiny project, its model with each kind of tokenizer."""
    make_project(tmp_path, tiny_folders["llama"])
    framing(tokenizer, *KINDS[request.param]).save_pretrained(tmp_path / "mine" / "model")
    monkeypatch.chdir(tmp_path)
    write_tasks(tmp_path)
    with_harness(tmp_path)
    assert run_stage("download", "model").status == 0
    return load(Path("data/model"), Path("data/original"), CPU)


def run(run_stage: RunStage, task: str, model: str = "original") -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables that a task leaves of a model."""
    finished = run_stage("harness", task, model)
    assert (finished.status, finished.out, finished.err) == (0, "", "")
    folder = Path("data/predictions/harness") / model / task
    return read_table(folder / "results.parquet"), read_table(folder / "samples.parquet")


def own_tokens(loaded: Loaded, text: str) -> list[int]:
    ids: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def test_the_rolling_figure_is_ours(framed: Loaded, run_stage: RunStage) -> None:
    results, samples = run(run_stage, "lines")
    documents = Path("mine/text.txt").read_text().splitlines()
    if framed.first_tokens:  # as if each document were the whole text, in one window
        nats = 0.0
        for document in documents:
            window = len(own_tokens(framed, document)) + 1
            settings = Perplexity(context=window, stride=window, batch_size=1)
            nats += float(score(framed, [document], settings)["nll"].sum())
    else:
        prefix = framed.tokenizer.eos_token_id
        sequences = [np.array([prefix, *own_tokens(framed, document)]) for document in documents]
        nats = float(np.concatenate(losses_within(framed, sequences, [1] * len(sequences), 4)).sum())
    size = sum(len(document.encode()) for document in documents)
    row = results.set_index("metric").loc["bits_per_byte"]
    assert row["value"] == pytest.approx(nats / size / math.log(2), rel=1e-6)
    assert row["n"] == len(documents) == 10
    assert not row["higher_is_better"]
    assert samples.empty  # a document has no figure of its own


def naive_choices(loaded: Loaded, rows: Sequence[dict[str, str]]) -> list[float]:
    """Whether the more likely of two words behind each review is its label, from one pass per word."""
    right = []
    for row in rows:
        prompt = [*loaded.first_tokens, *own_tokens(loaded, f"Review: {row['text']} It was")]
        likelihoods = []
        for word in ("negative", "positive"):
            tokens = torch.tensor([*prompt, *own_tokens(loaded, f" {word}")])
            with torch.inference_mode():
                predicted = loaded.model(tokens[None]).logits[0].log_softmax(dim=-1)
            places = range(len(prompt), len(tokens))
            likelihoods.append(sum(float(predicted[place - 1, tokens[place]]) for place in places))
        right.append(float(("negative", "positive")[int(np.argmax(likelihoods))] == row["label"]))
    return right


def test_multiple_choice_is_a_plain_loop(framed: Loaded, run_stage: RunStage) -> None:
    results, samples = run(run_stage, "choices")
    right = naive_choices(framed, [json.loads(line) for line in Path("mine/reviews.jsonl").read_text().splitlines()])
    assert samples["value"].tolist() == right
    assert samples["document"].tolist() == list(range(50))
    assert samples["doc_hash"].nunique() == 50
    (row,) = results.to_dict("records")
    share = np.mean(right)
    assert 0 < share < 1
    assert row["value"] == pytest.approx(share)
    assert row["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 49))
    assert (row["task"], row["version"], row["metric"], row["filter"], row["n"]) == (
        "choices",
        "1.5",
        "acc",
        "none",
        50,
    )
    assert row["higher_is_better"]


def test_generation_is_greedy_decoding(framed: Loaded) -> None:
    """In batches padded on the left, behind the special tokens that come first, and without those at the end."""
    from lm_eval.api.instance import Instance

    contexts = [prose(words, words) for words in (3, 11, 7)]
    arguments = [(context, {"until": ["\n\n"], "max_gen_toks": 6, "do_sample": False}) for context in contexts]
    requests = [Instance("generate_until", {}, each, number) for number, each in enumerate(arguments)]
    expected = []
    for context in contexts:
        tokens = [*framed.first_tokens, *own_tokens(framed, context)]
        begin = len(tokens)
        while len(tokens) < begin + 6 and framed.tokenizer.eos_token_id not in tokens[begin:]:
            with torch.inference_mode():
                tokens.append(int(framed.model(torch.tensor([tokens])).logits[0, -1].argmax()))
        expected.append(framed.tokenizer.decode(tokens[begin:], skip_special_tokens=True))
    assert HarnessModel(framed, 3).generate_until(requests) == expected
    assert len(set(expected)) > 1


def test_shots_and_limit(own: Path, run_stage: RunStage) -> None:
    with_harness(own, limit=20)
    results, without = run(run_stage, "choices")
    assert results["n"].tolist() == [20]
    assert len(without) == 20
    found: dict[int, pd.DataFrame] = {}
    for seed in (0, 0, 1):
        with_harness(own, limit=20, shots=3)
        params = Path("params.yaml")
        params.write_text(params.read_text().replace("seed: 0", f"seed: {seed}"))
        _, samples = run(run_stage, "choices")
        assert seed not in found or samples.equals(found[seed])
        found[seed] = samples
    assert not found[0].equals(without)
    assert not found[0].equals(found[1])


def test_flips_of_the_pruned_model(own: Path, run_stage: RunStage) -> None:
    for stage in (("download", "text"), ("prune",), ("recover",)):
        assert run_stage(*stage).status == 0
    tables = {model: run(run_stage, "choices", model)[1] for model in ("original", "pruned")}
    for model in tables:
        run(run_stage, "lines", model)
        assert run_stage("measure_harness", model).status == 0
    original, pruned = (json.loads(Path(f"metrics/harness/{model}.json").read_text()) for model in tables)
    before, after = (table["value"].tolist() for table in tables.values())
    lost = sum(one == 1 and other == 0 for one, other in zip(before, after, strict=True))
    gained = sum(one == 0 and other == 1 for one, other in zip(before, after, strict=True))
    assert lost + gained > 0
    assert set(original["choices"]) == {"acc", "acc_stderr", "examples"}
    assert set(original["lines"]) == set(pruned["lines"]) == {"bits_per_byte", "word_perplexity", "examples"}
    found = pruned["choices"]
    assert (found["lost"], found["gained"]) == (lost / 50, gained / 50)
    assert found["flips"] == pytest.approx((lost + gained) / 50)
    assert found["acc"] - original["choices"]["acc"] == pytest.approx((gained - lost) / 50)
    ends = wilson_by_hand(lost + gained, 50)
    assert [found["flips_low"], found["flips_high"]] == pytest.approx(ends, abs=1e-5)
    settings = Harness(**changed_params({})["harness"] | {"models": list(tables), "tasks": ["choices", "lines"]})
    table = read_harness(settings)
    assert table["model"].tolist() == ["original", "original", "pruned", "pruned"]
    head, *rows = harness_rows(table)
    assert head == ["model", "choices: acc ↑", "choices: flips ↓", "lines: bits_per_byte ↓"]
    assert [row[0] for row in rows] == ["original", "pruned"]
    assert rows[0][1] == f"{original['choices']['acc']:.3f} ± {original['choices']['acc_stderr']:.3f}"
    assert [row[2] for row in rows] == ["—", f"{found['flips']:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]"]
    assert "choices on 50 documents, lines on 10 documents" in harness_caption(table)


def wilson_by_hand(successes: int, trials: int) -> tuple[float, float]:
    z, share = 1.959963984540054, successes / trials
    middle = share + z**2 / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return (middle - reach) / (1 + z**2 / trials), (middle + reach) / (1 + z**2 / trials)


@pytest.mark.parametrize(("task", "item"), [("reviews", "reviews"), ("editorials", "text")])
def test_the_tasks_of_the_embedded_study(own: Path, run_stage: RunStage, task: str, item: str) -> None:
    shutil.copytree(ROOT / "studies" / "harness", own / "studies" / "harness")
    with_harness(own, path="studies/harness", tasks=[task], limit=4)
    assert run_stage("download", item).status == 0
    rows = read_table(Path("data") / item / "rows.parquet")
    scored = min(4, int((rows["split"] == "test").sum()))
    results, samples = run(run_stage, task)
    assert set(results["n"]) == {scored} != {len(rows)}
    assert len(samples) == (scored if task == "reviews" else 0)
    assert {"reviews": "acc", "editorials": "bits_per_byte"}[task] in set(results["metric"])


def test_a_group_and_a_tag(own: Path, run_stage: RunStage) -> None:
    """A group with a figure of its own is one column, a tag as many as it has tasks."""
    with_harness(own, tasks=["pair", "mine"], limit=30)
    results, samples = run(run_stage, "pair")
    values = results.set_index("task")["value"]
    assert values["pair"] == pytest.approx((values["choices"] + values["others"]) / 2)
    assert samples["task"].value_counts().to_dict() == {"choices": 30, "others": 30}
    write_as_pruned("pair", samples.assign(value=1 - samples["value"]))
    flips = harness_figures("pruned", ["pair"])
    assert {task: found["flips"] for task, found in flips.items()} == {"choices": 1, "others": 1, "pair": 1}
    assert flips["pair"]["flips_low"] > flips["choices"]["flips_low"]  # over twice as many documents
    run(run_stage, "mine")
    table = read_harness(Harness(**changed_params({})["harness"] | {"models": ["original"], "tasks": ["pair", "mine"]}))
    assert table["task"].tolist() == ["pair", "choices", "lines", "others"]


def write_as_pruned(task: str, samples: pd.DataFrame) -> None:
    """What was found of the original, as the pruned model's, with other samples."""
    results = read_table(harness_folder("original", task) / "results.parquet")
    write_table(results, harness_folder("pruned", task) / "results.parquet")
    write_table(samples, harness_folder("pruned", task) / "samples.parquet")


RESULTS = pd.DataFrame(
    {
        **{"task": ["t", "t"], "version": "1", "metric": ["exact_match", "f1"], "filter": ["strict", "none"]},
        **{"value": [0.5, math.nan], "stderr": [None, 0.1], "higher_is_better": True, "n": 4, "lm_eval": "0"},
    }
)


def found(values: dict[str, list[float]], **changes: Any) -> pd.DataFrame:
    """Samples of four documents, by metric and filter."""
    rows = [
        {
            "task": "t",
            "document": number,
            "doc_hash": f"h{number}",
            "metric": metric,
            "filter": filtered,
            "value": value,
        }
        for key, of_metric in values.items()
        for metric, _, filtered in [key.partition(",")]
        for number, value in enumerate(of_metric)
    ]
    return pd.DataFrame(rows).assign(**changes)


def write_found(model: str, samples: pd.DataFrame) -> None:
    write_table(RESULTS, harness_folder(model, "t") / "results.parquet")
    write_table(samples, harness_folder(model, "t") / "samples.parquet")


def test_flips_are_those_of_the_first_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_found("original", found({"exact_match,strict": [0, 0, 1, 1], "exact_match,flexible": [1, 1, 1, 1]}))
    write_found("pruned", found({"exact_match,strict": [0, 1, 0, 0], "exact_match,flexible": [0, 0, 0, 0]}))
    of_t = harness_figures("pruned", ["t"])["t"]
    assert (of_t["flips"], of_t["lost"], of_t["gained"]) == (0.75, 0.5, 0.25)
    assert of_t["exact_match,strict"] == 0.5
    assert of_t["f1_stderr"] == 0.1
    assert "f1" not in of_t  # it is no number


def test_a_metric_that_is_not_right_or_wrong_has_no_flips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("original", "pruned"):
        write_found(model, found({"acc,none": [0.5, 0, 1, 1]}))
    assert "flips" not in harness_figures("pruned", ["t"])["t"]


@pytest.mark.parametrize("changes", [{"doc_hash": "other"}, {"document": [3, 2, 1, 0]}])
def test_other_documents_have_no_flips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_found("original", found({"acc,none": [0, 0, 1, 1]}))
    write_found("pruned", found({"acc,none": [0, 0, 1, 1]}, **changes))
    with pytest.raises(
        UserError, match=r"the task t asked pruned and the original about other documents, .* `dvc repro`"
    ):
        harness_figures("pruned", ["t"])


def test_a_model_that_is_left_out(own: Path, run_stage: RunStage) -> None:
    folder = Path("data/recovered/merged_2")
    folder.mkdir()
    write_recipe(LeftOut(reason="It is a test."), folder)
    with_harness(own, models=["original", "merged_2"], tasks=["lines"])
    assert run_stage("harness", "lines", "merged_2").status == 0
    for table in run(run_stage, "lines", "merged_2"):
        assert table.equals(absent_table("It is a test."))
    run(run_stage, "lines")
    assert run_stage("measure_harness", "merged_2").status == 0
    assert json.loads(Path("metrics/harness/merged_2.json").read_text()) == {}
    settings = changed_params({})["harness"] | {"models": ["original", "merged_2"], "tasks": ["lines"]}
    assert read_harness(Harness(**settings))["model"].tolist() == ["original"]


# Bad input.


def line(finished: Finished, status: int) -> str:
    assert (finished.status, finished.out) == (status, "")
    (only,) = finished.err.splitlines()
    assert only.startswith("error: harness@")
    return only


def test_a_task_that_does_not_exist(own: Path, run_stage: RunStage) -> None:
    (own / "mine" / "tasks" / "broken.yaml").write_text("task: [broken\n")
    with_harness(own, tasks=["arc_esy"])
    said = line(run_stage("harness", "arc_esy", "original"), 2)
    assert "harness@arc_esy-original: harness.tasks: there is no task 'arc_esy'" in said
    assert "mine/tasks has choices, lines, mine, others, pair; mine/tasks/broken.yaml cannot be read (" in said
    assert "names, listed by `lm-eval ls tasks`" in said
    assert "the closest: " in said
    assert "arc_easy" in said
    assert not Path("data/predictions").exists()


def test_the_harness_is_not_installed(own: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    said = line(run_stage("harness", "lines", "original"), 1)
    assert "not installed; run `pip install -r requirements-harness.txt`, or set harness.models to []" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"dataset_kwargs": {"data_files": {"test": "mine/none.txt"}}},
            "the data of the task lines cannot be loaded (",
        ),
        (
            {"doc_to_target": "{{nosuch}}"},
            "the task lines cannot be loaded (UndefinedError: 'nosuch' is undefined); ch",
        ),
        ({"output_type": "guess"}, "the task lines cannot be loaded (ValueError: Got invalid output_type 'guess'"),
        ({"test_split": "nosuch"}, "the task lines cannot be loaded (KeyError: 'nosuch'"),
        ({"unsafe_code": True}, "the task lines runs code that a model has written, which is not done here; leave it"),
        ({"doc_to_image": ["text"]}, "the task lines shows pictures or plays sounds"),
    ],
)
def test_a_task_that_cannot_be_run(own: Path, run_stage: RunStage, changes: dict[str, Any], says: str) -> None:
    path = own / "mine" / "tasks" / "lines.yaml"
    kept = [text for text in ROLLING_TASK.splitlines() if text.partition(":")[0] not in changes]
    path.write_text("\n".join([*kept, *(f"{key}: {json.dumps(value)}" for key, value in changes.items())]))
    assert says in line(run_stage("harness", "lines", "original"), 1)


def test_data_that_cannot_be_downloaded(own: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets.config.HF_HUB_OFFLINE", "huggingface_hub.constants.HF_HUB_OFFLINE"):
        monkeypatch.setattr(name, True)
    with_harness(own, tasks=["arc_easy"], path="data/none")
    said = line(run_stage("harness", "arc_easy", "original"), 1)
    assert "the data of the task arc_easy cannot be loaded (" in said
    assert "check the connection, and the task's files" in said


def test_a_module_that_is_not_installed(own: Path, run_stage: RunStage) -> None:
    (own / "mine" / "tasks" / "parts.py").write_text("import nosuch\n\ndef count(doc, results): ...\n")
    path = own / "mine" / "tasks" / "lines.yaml"
    path.write_text(ROLLING_TASK + "process_results: !function parts.count\n")
    said = line(run_stage("harness", "lines", "original"), 1)
    assert "the task lines needs a package that is not installed (No module named 'nosuch')" in said


def test_a_path_that_is_no_folder(own: Path, run_stage: RunStage) -> None:
    with_harness(own, path="mine/text.txt")
    said = line(run_stage("harness", "lines", "original"), 2)
    assert "harness.path: got 'mine/text.txt', takes a folder of task files" in said


def test_a_task_and_a_model_that_are_not_asked_for(own: Path, run_stage: RunStage) -> None:
    said = line(run_stage("harness", "../lines", "original"), 2)
    assert "task: got '../lines', takes one of harness.tasks, choices, lines" in said
    assert "got 'merged', takes original, pruned, merged_n" in line(run_stage("harness", "lines", "merged"), 2)


# Under DVC.


def test_tasks_and_models_are_stages(finished_repository: Repository, tmp_path: Path) -> None:
    """One for each pair; a new task runs alone, and another recipe leaves the original's results."""
    repository = finished_repository.copy(tmp_path / "repository")
    write_tasks(repository.folder)
    repository.commit("Tasks")
    settings = ["-S", "harness.models=[original,pruned]", "-S", "harness.path=mine/tasks", "-S", "harness.limit=9"]
    output = repository.dvc("exp", "run", *settings, "-S", "harness.tasks=[choices]")
    measured = {"measure-harness@original", "measure-harness@pruned", "report"}
    assert ran(output) == {"harness@choices-original", "harness@choices-pruned", *measured}
    output = repository.dvc("exp", "run", "-S", "harness.tasks=[choices,lines]")
    assert ran(output) == {"harness@lines-original", "harness@lines-pruned", *measured}
    pruned = json.loads((repository.folder / "metrics/harness/pruned.json").read_text())
    assert set(pruned) == {"choices", "lines"}
    report = (repository.folder / "report/report.md").read_text()
    assert "## Standard benchmarks\n\n| model | choices: acc ↑ | choices: flips ↓ | lines: bits_per_byte ↓ |" in report
    assert f"| pruned | {pruned['choices']['acc']:.3f} ± " in report
    assert '<h2 id="benchmarks">' in (repository.folder / "report/index.html").read_text()
    output = repository.dvc("exp", "run", "-S", "prune.sparsity=0.4", "measure-harness@pruned")
    assert {stage for stage in ran(output) if "harness" in stage} == {
        *("harness@choices-pruned", "harness@lines-pruned", "measure-harness@pruned")
    }
