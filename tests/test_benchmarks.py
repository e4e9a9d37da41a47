"""Each script under benchmarks/ at a small size, started as a user would; tests/test_mistakes.py covers mistakes/."""

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, changed_params, make_project, prose, speaking, tiny_llama, write_jsonl, write_params
from repository import ENVIRONMENT, Repository
from transformers import PreTrainedTokenizerFast

from stages.lib.evaluation.rouge import Rouge
from stages.lib.evaluation.summarization import lead_sentence
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import shuffled

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny model whose context holds the benchmarks' windows, and a text of documents shorter than a window."""
    folder, model = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("model")
    tiny_llama(max_position_embeddings=2048).save_pretrained(model)
    template = "{% for turn in messages %}{{ turn['content'] }}<|end|>{% endfor %}"
    speaking(tokenizer, template, []).save_pretrained(model)
    make_project(folder, model)
    (folder / "mine" / "text.txt").unlink()
    write_jsonl(folder / "mine" / "text.jsonl", [{"text": prose(200, seed)} for seed in range(100)])
    text = {"source": "local", "path": "mine/text.jsonl", "format": "table", "test_share": 0.7}
    write_params(folder, changed_params({"text": text}))
    for item in ("model", "text", "documents"):
        run(folder, "stages.download", item)
    return folder


def run(folder: Path, module: str, *arguments: str) -> str:
    command = ["python", "-m", module, *arguments]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prune() -> None:
    found = json.loads(run(ROOT, "benchmarks.prune", "--pairs", "1", "--blocks", "1"))
    assert found["pruned"] == "1,703,317 of 7,077,888"
    assert found["pruned_here"] == found["pruned_by_torch"] == 1_703_317
    assert found["differ_elsewhere"] == 0


def test_structure() -> None:
    found = json.loads(run(ROOT, "benchmarks.structure", "--pairs", "1"))
    assert found["here"]["weights"] == found["peer"]["weights"] == 80 * (2 * 8192 + 2 * 1024 + 3 * 28672) * 8192
    assert found["here"]["megabytes"] < 500  # of 140,000 in bfloat16


def test_coverage() -> None:
    tables = run(ROOT, "benchmarks.coverage", "--samples", "20").split("\n\n")
    assert [table.splitlines()[0].split(" | ")[1:] for table in tables] == [
        ["3 items", "5 items", "10 items", "30 items", "100 items |"]
    ] * 2
    for table in tables:
        assert len(table.splitlines()) == 2 + 7  # a row per kind of data
    covered = [float(cell) for cell in re.findall(r"([\d.]+)% \(", tables[0])]
    assert np.mean(covered) > 85
    found = [float(cell) for cell in re.findall(r"([\d.]+)% \|", tables[1])]
    assert np.mean(found) < 10


def test_nothing_to_do(finished_repository: Repository, tmp_path: Path) -> None:
    found = json.loads(
        run(finished_repository.copy(tmp_path / "copy").folder, "benchmarks.nothing_to_do", "--pairs", "1")
    )
    assert found["ratio"] == pytest.approx(found["seconds"] / found["one_stage"], abs=0.05)


def test_storage(study: Path) -> None:
    lines = run(study, "benchmarks.storage", "--sparsities", "0.5").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == ["original", "magnitude 50.0%", "wanda 50.0%", "sparsegpt 50.0%"]
    recipes, dense = ([int(row[column].replace(",", "")) for row in rows[2:]] for column in (1, 2))
    assert recipes == sorted(recipes)
    assert max(recipes) < min(dense)
    assert re.fullmatch(r"reading a stored mask: [\d.]+ s, [\d.]+ × a copy of as many bytes", lines[-1])


def test_speed(study: Path) -> None:
    found = json.loads(run(study, "benchmarks.speed", "--context", "64", "--new-tokens", "4", "--turns", "1"))
    assert list(found) == ["original", "pruned", "2:4", "compressed_2"]  # of two blocks
    flops = {name: row["flops_per_token"] for name, row in found.items()}
    assert flops["original"] == flops["pruned"] == flops["2:4"] > flops["compressed_2"]
    assert all(row["reads_per_second"] > 0 and row["writes_per_second"] > 0 for row in found.values())


def test_methods(study: Path) -> None:
    settings = [
        "prune.method=magnitude",
        "prune.method=kfac prune.update=outputs",
        "prune.method=surgeon prune.sparsity=0.5",
        "prune.method=surgeon prune.sparsity=0.5 recover.steps=1",
    ]
    rows = [line.strip("| ").split(" | ") for line in run(study, "benchmarks.methods", *settings).splitlines()[4:]]
    assert [row[0] for row in rows] == [f"`{setting}`" for setting in settings]
    numbers = [[float(cell.replace(",", "")) for cell in row[1:]] for row in rows]
    assert all(0.5 < row[0] < 2 for row in numbers)  # of noise
    assert numbers[0][2] < numbers[1][2]  # bytes: a threshold, and a mask with weights
    assert numbers[2][0] != numbers[3][0]
    for mistake in ("kfac", "prune.methd=kfac", "prune.method=foo"):
        with pytest.raises(AssertionError, match=f"error: .*{mistake.partition('=')[0]}"):
            run(study, "benchmarks.methods", mistake)


def test_distance(study: Path) -> None:
    run(study, "stages.prune")
    found = json.loads(run(study, "benchmarks.distance", "--tokens", "2048", "--pairs", "1"))
    assert found["largest_difference_from_a_plain_loop"] < 1e-5 < found["kl_divergence"]


def test_prompts(study: Path) -> None:
    rows = [line.strip("| ").split(" | ") for line in run(study, "benchmarks.prompts", "--documents", "2").splitlines()]
    assert len(rows) == 2 + 6 + 6 + 1
    assert sum("{document}" in row[0] for row in rows) == 6
    for _, rouge, empty, repeating in rows[2:-1]:
        assert 0 <= float(rouge.split(" [")[0]) < 0.5  # of noise
        assert {empty, repeating} <= {"0%", "50%", "100%"}
    # The two of eight documents that are not among the six scored ones.
    documents = read_rows(study / "data" / "documents").set_index("document")
    rest = documents.loc[shuffled(documents.index, 0)[6:]]
    lead = Rouge().compute(predictions=[*map(lead_sentence, rest["text"])], references=[*rest["summary"]])
    assert float(rows[-1][1]) == pytest.approx(np.mean(lead["rougeL"]), abs=5e-4)


@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install -r benchmarks/requirements.txt"
)
def test_perplexity(study: Path) -> None:
    found = json.loads(run(study, "benchmarks.perplexity", "--editorials", "2", "--long", "1", "--pairs", "1"))
    assert found["editorials"]["documents"] == 2
    assert found["long"]["tokens"] == 2048
    for part in found.values():
        assert part["largest_relative_difference"] < 1e-5


@pytest.mark.skipif("BENCHMARK_PEER" not in os.environ, reason="needs BENCHMARK_PEER, see CONTRIBUTING.md")
def test_calibrated(study: Path) -> None:
    peer = Path(os.environ["BENCHMARK_PEER"]).absolute()
    lines = run(study, "benchmarks.calibrated", "--peer", str(peer), "--windows", "1").splitlines()
    rows = [line.split(" | ") for line in lines[1:]]
    assert [row[0] for row in rows] == ["wanda, row", "wanda, 2:4", "sparsegpt, layer"]
    for _, _, _, _, agreement, ours, theirs in rows:
        assert float(agreement.rstrip("%")) > 90
        assert float(ours) == pytest.approx(float(theirs), rel=0.05)
