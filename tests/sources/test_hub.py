"""The hub source against a small hub on the loopback, with real requests and real faults."""

import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import warm_python
from conftest import TINY_PARAMS, Finished, changed_params, prose, write_params
from loopback_hub import REVISION, Hub
from repository import COLD, ENVIRONMENT
from transformers import AutoModelForCausalLM

MODEL = {"source": "hub", "path": "data/none", "repo": "tiny/llama", "revision": REVISION}
REVIEWS = {
    "source": "hub",
    "path": "data/none",
    "repo": "tiny/reviews",
    "revision": REVISION,
    "sha256": {},
    "files": {"train": ["plain/train.parquet"], "test": ["plain/test.parquet"]},
}

Download = Callable[..., Finished]


@pytest.fixture
def hub(server: Hub, tmp_path: Path, tiny_folders: dict[str, Path]) -> Hub:
    """A hub without faults, with one model and one data set."""
    reviews = tmp_path / "reviews"
    (reviews / "plain").mkdir(parents=True)
    for split, count in (("train", 300), ("test", 7)):
        rows = [{"text": f"{split} {row} {prose(5, row)}", "label": row % 2} for row in range(count)]
        pd.DataFrame(rows).to_parquet(reviews / "plain" / f"{split}.parquet")
    (reviews / "README.md").write_text("not asked for")
    server.reset({"models/tiny/llama": tiny_folders["llama"], "datasets/tiny/reviews": reviews})
    return server


@pytest.fixture(scope="module")
def environment(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment whose commands reach the hub. Its address is read on import, so it needs its own server."""
    folder = tmp_path_factory.mktemp("warm")
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    path = os.pathsep.join([str(folder), ENVIRONMENT["PATH"]])
    with warm_python.started(folder, {**os.environ, **settings}):
        yield {**ENVIRONMENT, **settings, "PATH": path}


@pytest.fixture
def download(project: Path, hub: Hub, environment: dict[str, str]) -> Download:
    """Run `python -m stages.download` against the hub, as a separate process, with an empty hub cache."""
    shutil.rmtree(environment["HF_HOME"], ignore_errors=True)

    def run(item: str, changes: dict[str, Any], **others: str) -> Finished:
        write_params(project, changed_params(changes))
        command = ["python", "-m", "stages.download", item]
        done = subprocess.run(
            command, env={**environment, **others}, capture_output=True, text=True, timeout=120, check=False
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def pinned(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"model": {**MODEL, "sha256": {"model.safetensors": weights_digest(folder)}, **changes}}


def test_a_model_is_the_same_as_from_a_local_folder(
    project: Path, download: Download, tiny_folders: dict[str, Path]
) -> None:
    finished = download("model", pinned(tiny_folders["llama"]))
    assert finished == Finished(0, "", "")
    from_hub = {path.name: path.read_bytes() for path in (project / "data" / "model").iterdir()}
    assert download("model", {"model": TINY_PARAMS["model"]}).status == 0
    assert {path.name: path.read_bytes() for path in (project / "data" / "model").iterdir()} == from_hub


def test_a_distilled_sibling_is_measured_beside_the_model(
    project: Path, download: Download, run_stage: Callable[..., Finished], tiny_folders: dict[str, Path]
) -> None:
    digest = weights_digest(tiny_folders["llama"])
    changes = {
        "distilled": {**MODEL, "sha256": {"model.safetensors": digest}},
        "compare.variants": ["distilled"],
    }
    assert download("distilled", changes) == Finished(0, "", "")
    for stage in [("download", item) for item in ("model", "text", "reviews", "documents")] + [("shrink",)]:
        assert run_stage(*stage).status == 0
    recipe = json.loads((project / "data/variants/distilled/recipe.json").read_text())
    assert recipe["sha256"] == weights_digest(project / "data/distilled")
    assert run_stage("recover_others", "distilled").status == 0
    of_original = [("baseline_ppl",), ("classify", "original")]
    for stage in (*of_original, ("compare", "distilled"), ("measure", "distilled")):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    assert json.loads((project / "metrics/perplexity/distilled.json").read_text())["perplexity"] > 1


def test_a_data_set_keeps_its_own_splits(project: Path, download: Download, environment: dict[str, str]) -> None:
    assert download("reviews", {"reviews": REVIEWS}) == Finished(0, "", "")
    rows = pd.read_parquet(project / "data" / "reviews" / "rows.parquet")
    assert rows["split"].value_counts().to_dict() == {"train": 300, "test": 7}
    assert rows[rows["split"] == "train"].iloc[0].to_dict() == {
        "document": "train/0",
        "split": "train",
        "text": f"train 0 {prose(5, 0)}",
        "label": 0,
    }
    assert not list(Path(environment["HF_HOME"]).rglob("README.md"))


def test_a_broken_transfer_goes_on_where_it_stopped(project: Path, download: Download, hub: Hub) -> None:
    # Larger than two of the pieces, 10 MB each, that huggingface_hub writes at a time.
    noise = random.Random(0)
    rows = [{"text": noise.randbytes(50_000).hex(), "label": row % 2} for row in range(300)]
    train = hub.repositories["datasets/tiny/reviews"] / "plain" / "train.parquet"
    pd.DataFrame(rows).to_parquet(train, compression=None)
    hub.breaks["train.parquet"] = 1
    assert download("reviews", {"reviews": REVIEWS}) == Finished(0, "", "")
    assert [int(wanted.removeprefix("bytes=").rstrip("-")) > 0 for wanted in hub.ranges] == [True]
    found = pd.read_parquet(project / "data" / "reviews" / "rows.parquet")
    assert found[found["split"] == "train"]["text"].tolist() == [row["text"] for row in rows]


def test_damage_on_the_way_is_found_and_forgotten(project: Path, download: Download, hub: Hub) -> None:
    hub.damages.add("test.parquet")
    finished = download("reviews", {"reviews": REVIEWS})
    assert finished.status == 1
    assert finished.err.splitlines() == [
        "error: download@reviews: tiny/reviews: test.parquet arrived damaged "
        "(it does not match the hub's listing); run again"
    ]
    assert not (project / "data" / "reviews").exists()
    hub.damages.clear()
    assert download("reviews", {"reviews": REVIEWS}).status == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sha256": {"model.safetensors": "0" * 64}}, "pinned is 0000"),
        ({"sha256": {}}, "model.safetensors is not pinned; add its sha256 to model.sha256"),
        ({"revision": "f" * 40}, f"has no public revision {'f' * 40} (404)"),
        ({"repo": "tiny/none"}, "tiny/none: the hub at http://127.0.0.1"),
    ],
    ids=["wrong pin", "no pin", "revision", "repository"],
)
def test_what_the_hub_cannot_give(
    download: Download, tiny_folders: dict[str, Path], changes: dict[str, Any], says: str
) -> None:
    finished = download("model", pinned(tiny_folders["llama"], **changes))
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert line.startswith("error: download@model: ")
    assert says in line


def test_a_model_of_several_files(
    project: Path, download: Download, hub: Hub, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    """Each is pinned, and stays the file that it is on the hub."""
    folder = tmp_path / "sharded"
    shutil.copytree(tiny_folders["llama"], folder, ignore=shutil.ignore_patterns("*.safetensors"))
    AutoModelForCausalLM.from_pretrained(tiny_folders["llama"]).save_pretrained(folder, max_shard_size="50KB")
    hub.repositories["models/tiny/llama"] = folder
    pins = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))}
    first, *others = pins
    finished = download("model", {"model": {**MODEL, "sha256": {}}})
    assert f"{first} is not pinned, nor {len(others)} more of its {len(pins)} files of weights; add" in finished.err
    assert download("model", {"model": {**MODEL, "sha256": pins}}) == Finished(0, "", "")
    written = (project / "data" / "model").glob("*.safetensors")
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in written} == pins


def test_a_file_that_the_repository_lacks(download: Download) -> None:
    finished = download("reviews", {"reviews": {**REVIEWS, "files": {"test": ["plain/no.parquet"]}}})
    assert finished.status == 1
    assert "has no plain/no.parquet at" in finished.err
    assert len(finished.err.splitlines()) == 1


def test_only_pickles(download: Download, hub: Hub, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    for path in tiny_folders["llama"].iterdir():
        (folder / path.name.replace("model.safetensors", "pytorch_model.bin")).write_bytes(path.read_bytes())
    hub.repositories["models/tiny/llama"] = folder
    finished = download("model", pinned(tiny_folders["llama"]))
    assert finished.status == 1
    assert "has no model.safetensors at" in finished.err


def assert_it_cannot_be_reached(finished: Finished) -> None:
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert "cannot be reached; check the network, set HF_ENDPOINT to a mirror, or download the files elsewhere" in line


def test_a_hub_with_an_error(download: Download, hub: Hub) -> None:
    hub.status = 500
    assert_it_cannot_be_reached(download("reviews", {"reviews": REVIEWS}))


@pytest.mark.slow
def test_no_hub(download: Download) -> None:
    """The library retries for 23 seconds."""
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": COLD["PATH"]}
    assert_it_cannot_be_reached(download("reviews", {"reviews": REVIEWS}, **nowhere))
