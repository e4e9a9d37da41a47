"""The whole pipeline under DVC, on a tiny local model in a Git repository of its own."""

import contextlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from repository import ALL, COLD, PRUNED_ONLY, Repository, ran


@pytest.fixture(scope="module")
def repository(finished_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return finished_repository.copy(tmp_path_factory.mktemp("copy") / "repository")


def metric(repository: Repository, name: str) -> dict[str, float]:
    content: dict[str, float] = json.loads((repository.folder / "metrics" / f"{name}.json").read_text())
    return content


def with_intervals(*keys: str) -> set[str]:
    return {name for key in keys for name in (key, f"{key}_low", f"{key}_high")}


def test_the_names_that_others_script_against(repository: Repository) -> None:
    keys = {
        "perplexity": with_intervals("perplexity", "bits_per_byte") | {"tokens", "items"},
        "classify": with_intervals("accuracy") | {"examples"},
        "summarize": with_intervals("rouge1", "rouge2", "rougeL", "degenerate")
        | {"empty", "repeating", "lead_rougeL", "examples"},
        "size": {
            *("total_parameters", "distinct_parameters", "effective_parameters", "prunable_weights", "pruned_weights"),
            *("sparsity", "flops_per_token", "stored_bytes"),
        },
    }
    distances = {
        "perplexity": with_intervals("kl_divergence", "same_top"),
        "classify": with_intervals("flips") | {"lost", "gained"},
    }
    for measure, model in itertools.product(keys, ("original", "pruned", "merged_2", "compressed_2")):
        expected = keys[measure] | (distances.get(measure, set()) if model != "original" else set())
        found = set(metric(repository, f"{measure}/{model}"))
        assert found <= expected
        assert measure == "summarize" or found == expected  # six summaries may be too few for intervals
        assert not [key for key in expected - found if not key.endswith(("_low", "_high"))]


def test_another_variant_runs_itself(repository: Repository) -> None:
    before = repository.results()
    params = repository.folder / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("- compressed_2", "- compressed_2\n  - compressed_1"))
    assert ran(repository.dvc("repro")) == {
        *("shrink", "recover-others@compressed_1", "compare@compressed_1", "measure-others@compressed_1", "report")
    }
    assert "compressed_1," in (repository.folder / "metrics" / "summary.csv").read_text()
    params.write_text(good)
    assert ran(repository.dvc("repro")) == {"report"}
    after = repository.results()
    assert after.items() > before.items()
    assert all("compressed_1" in name for name in after.keys() - before.keys())  # they stay, and are not read
    assert repository.dvc("status").strip() == "Data and pipelines are up to date."
    for name in after.keys() - before.keys():
        (repository.folder / name).unlink()
    repository.git("checkout", "dvc.lock")  # DVC leaves the stage that is gone in it


def test_again_runs_nothing(repository: Repository) -> None:
    assert ran(repository.dvc("repro")) == set()
    assert repository.dvc("status").strip() == "Data and pipelines are up to date."


@pytest.mark.slow
def test_forced_runs_give_the_same_bytes(repository: Repository) -> None:
    before = repository.results()
    assert ran(repository.dvc("repro", "--force")) == ALL
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def test_another_sparsity_runs_what_depends_on_it(repository: Repository) -> None:
    assert ran(repository.dvc("exp", "run", "-S", "prune.sparsity=0.4")) == PRUNED_ONLY
    counts = metric(repository, "size/pruned")
    assert counts["pruned_weights"] == round(0.4 * counts["prunable_weights"])
    diff = json.loads(repository.dvc("metrics", "diff", "--json"))
    # The tiny model's summaries may come out the same; what never does is its perplexity.
    assert {"metrics/size/pruned.json", "metrics/perplexity/pruned.json"} <= set(diff)
    assert not {name for name in diff if "original" in name}
    assert diff["metrics/size/pruned.json"]["pruned_weights"]["new"] == counts["pruned_weights"]
    back = repository.dvc("exp", "run", "-S", "prune.sparsity=0.3")
    assert ran(back) == {"measure@pruned", "report"}  # DVC keeps no runs of uncached outputs
    assert repository.git("status", "--porcelain") == ""


def test_a_seed_does_not_fetch_the_model_again(repository: Repository) -> None:
    status = json.loads(repository.dvc("status", "--json"))
    assert status == {}
    params = repository.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("seed: 0", "seed: 1"))
    changed = json.loads(repository.dvc("status", "--json"))
    params.write_text(before)
    assert set(changed) == ALL - {"download@model", "download@distilled", "download@documents"}


def test_wrong_params_stop_the_run_and_lose_nothing(repository: Repository) -> None:
    before = repository.results()
    params = repository.folder / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("sparsity: 0.3", "sparsity: 1.3"))
    finished = repository.run("dvc", "repro")
    params.write_text(good)
    assert finished.status != 0
    assert "error: prune: params.yaml: prune.sparsity: got 1.3, takes a number from 0 to below 1" in finished.err
    assert "Traceback" not in finished.out + finished.err
    repository.dvc("checkout")
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def wait_for_imports(process: subprocess.Popen[str]) -> None:
    """Until the stage that DVC runs is in the middle of its imports, however slow the machine."""
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended, or not begun
                started = child.cmdline()[1:2] == ["-m"] and child.cmdline()[2].startswith("stages.")
                if started and any("numpy" in loaded.path for loaded in child.memory_maps()):
                    return
        time.sleep(0.02)


@pytest.mark.parametrize("stage", ["post-ppl", "report"])
def test_ctrl_c_loses_nothing(repository: Repository, stage: str) -> None:
    before = repository.results()
    missing = repository.folder / "data/predictions/size/pruned.parquet" if stage == "post-ppl" else None
    for _ in range(3):
        process, output = repository.cold().start(stage)
        wait_for_imports(process)
        assert missing is None or not missing.exists()  # DVC has removed it
        os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it
        output += process.communicate(timeout=120)[0]
        if process.returncode:
            break
        # Python drops an interrupt that falls into a weakref's callback, and says so. Then the stage just finishes.
        assert "Exception ignored" in output
        assert repository.results() == before
    assert process.returncode != 0
    assert f"error: {stage}: interrupted; `dvc repro` resumes from here" in output
    assert "Traceback" not in output
    repository.dvc("checkout")
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""
    assert ran(repository.dvc("repro")) == set()


def test_a_killed_download_leaves_nothing_behind(repository: Repository) -> None:
    before = repository.results()
    process = subprocess.Popen([sys.executable, "-m", "stages.download", "model"], cwd=repository.folder, env=COLD)
    data = repository.folder / "data"
    while not list(data.glob(".model.*.part")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(list(data.glob(".model.*.part"))) == 1
    finished = repository.run("python", "-m", "stages.download", "model")
    assert finished.status == 0, finished.err
    assert list(data.glob(".*.part")) == []
    assert repository.results() == before


@pytest.mark.parametrize("moment", ["download@model", "post-ppl", "classify@pruned", "report"])
def test_kill_9_loses_nothing(repository: Repository, moment: str) -> None:
    """DVC and its stage are killed at once; the next run ends where an undisturbed one would have."""
    before = repository.results()
    process, _ = repository.cold().start(moment)  # cold: its imports outlast any scheduling delay
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert repository.results() != before or moment == "report"  # DVC had removed what the stage writes
    repository.dvc("repro")
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        (["stages.download", "model"], "download@model"),
        (["stages.download", "reviews"], "download@reviews"),
        (["stages.baseline_ppl"], "baseline-ppl"),
        (["stages.export", "out"], "export"),
    ],
)
def test_a_full_disk(repository: Repository, command: list[str], stage: str) -> None:
    before = repository.results()
    finished = repository.cold().run("python", "-m", *command, limit=limit_file_size)
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert line.startswith(f"error: {stage}: the disk, or a quota on it, is full; free some space")
    assert repository.results() == before
    assert not (repository.folder / "out").exists()
    assert [str(path) for path in repository.folder.rglob("*.part")] == []


def test_a_lost_artifact_comes_back_from_the_cache(repository: Repository) -> None:
    before = repository.results()
    for name in (
        "data/model/model.safetensors",
        "data/pruned/recipe.json",
        "data/predictions/perplexity/pruned.parquet",
    ):
        (repository.folder / name).unlink()
    assert ran(repository.dvc("repro")) == set()
    assert repository.results() == before
