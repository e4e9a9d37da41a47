"""`python -m stages.pin` against a small hub on the loopback: what it pins is what the download then accepts."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, TINY_PARAMS, Finished, changed_params, prose, write_jsonl, write_params
from datasets import ClassLabel, Dataset, Features, Value
from huggingface_hub import constants
from loopback_hub import LARGE, REVISION, Hub
from repository import COLD
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.params import load_params
from stages.lib.plumbing.sections import replace_section

RunStage = Callable[..., Finished]
OTHER = "f" * 40
"""Another commit than the hub's usual one."""


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, Path]) -> Hub:
    """A hub with one model; the library in this process asks it, with an empty cache of its own."""
    server.reset({"models/tiny/llama": tiny_folders["llama"]})
    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    address = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return server


@pytest.fixture
def serve(hub: Hub, tmp_path: Path) -> Callable[[dict[str, Any]], None]:
    """Serve the data set tiny/set, of Parquet, CSV and JSON Lines files by name; a list of rows, or a text, in each."""

    def write(files: dict[str, Any]) -> None:
        folder = tmp_path / "set"
        shutil.rmtree(folder, ignore_errors=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            elif path.suffix == ".parquet":
                pd.DataFrame(content).to_parquet(path)
            elif path.suffix == ".csv":
                pd.DataFrame(content).to_csv(path, index=False)
            else:
                write_jsonl(path, content)
        hub.repositories["datasets/tiny/set"] = folder

    return write


@pytest.fixture
def pin(project: Path, hub: Hub, run_stage: RunStage) -> RunStage:
    """Run `python -m stages.pin` in a project, against the hub."""

    def run(*arguments: str) -> Finished:
        return run_stage("pin", *arguments)

    return run


def pinned(finished: Finished) -> dict[str, Any]:
    """The section that was printed."""
    assert finished.status == 0, finished.err
    ((_, section),) = YAML(typ="safe", pure=True).load(finished.out).items()
    assert isinstance(section, dict)
    return section


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reviews(split: str, count: int = 30) -> list[dict[str, Any]]:
    return [{"text": f"{split} {row} {prose(5, row)}", "label": row % 2} for row in range(count)]


def assert_one_line(finished: Finished, says: str, status: int = 1) -> None:
    (line,) = finished.err.splitlines()
    assert line.startswith("error: pin@")
    assert says in line
    assert finished.status == status
    assert finished.out == ""


def test_the_printed_section_is_one_that_the_download_takes(
    project: Path, pin: RunStage, run_stage: RunStage, tiny_folders: dict[str, Path]
) -> None:
    weights = tiny_folders["llama"] / "model.safetensors"
    assert weights.stat().st_size >= LARGE
    finished = pin("tiny/llama")
    assert finished == Finished(
        0,
        "model:\n  source: hub\n  path: data/none\n  repo: tiny/llama\n"
        f"  revision: {REVISION}\n  sha256:\n    model.safetensors: {digest(weights)}\n",
        "",
    )
    write_params(project, changed_params({"model": None}))
    with (project / "params.yaml").open("a") as file:
        file.write(finished.out)
    assert run_stage("download", "model") == Finished(0, "", "")
    assert (project / "data/model/model.safetensors").is_file()


def test_large_weights_are_pinned_without_a_download(project: Path, pin: RunStage) -> None:
    assert pin("tiny/llama").status == 0
    assert not (project / "cache").exists()


def test_shards_and_small_files_are_pinned_by_their_content(
    project: Path, pin: RunStage, hub: Hub, run_stage: RunStage, tiny_folders: dict[str, Path]
) -> None:
    """Some shards are too small for the hub to list their SHA-256."""
    folder = project / "sharded"
    shutil.copytree(tiny_folders["llama"], folder, ignore=shutil.ignore_patterns("model.safetensors"))
    AutoModelForCausalLM.from_pretrained(tiny_folders["llama"]).save_pretrained(folder, max_shard_size="9KB")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"not downloaded")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert {shard.stat().st_size < LARGE for shard in shards} == {False, True}
    hub.repositories["models/tiny/llama"] = folder
    assert pin("tiny/llama", "--write").status == 0
    params = YAML(typ="safe", pure=True).load((project / "params.yaml").read_text())
    assert params["model"]["sha256"] == {shard.name: digest(shard) for shard in shards}
    assert run_stage("download", "model") == Finished(0, "", "")


def test_a_shard_of_another_name_is_one_line(
    project: Path, pin: RunStage, hub: Hub, tiny_folders: dict[str, Path]
) -> None:
    folder = project / "sharded"
    shutil.copytree(tiny_folders["llama"], folder, ignore=shutil.ignore_patterns("model.safetensors"))
    AutoModelForCausalLM.from_pretrained(tiny_folders["llama"]).save_pretrained(folder, max_shard_size="9KB")
    index = folder / "model.safetensors.index.json"
    first = min(path.name for path in folder.glob("model-*.safetensors"))
    (folder / first).rename(folder / "head.safetensors")
    index.write_text(index.read_text().replace(first, "head.safetensors"))
    hub.repositories["models/tiny/llama"] = folder
    finished = pin("tiny/llama")
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert "tiny/llama: its weights are also in head.safetensors, a name that is not downloaded; save the model" in line


def test_a_small_file_that_arrives_damaged_is_not_pinned(
    project: Path, pin: RunStage, hub: Hub, tiny_folders: dict[str, Path]
) -> None:
    folder = project / "small"
    shutil.copytree(tiny_folders["llama"], folder)
    (folder / "model.safetensors").write_bytes(b"as good as any content")
    hub.repositories["models/tiny/llama"] = folder
    hub.damages.add("model.safetensors")
    assert_one_line(pin("tiny/llama"), "model.safetensors arrived damaged")
    hub.damages.clear()
    assert pinned(pin("tiny/llama"))["sha256"] == {"model.safetensors": digest(folder / "model.safetensors")}


def test_branches_and_tags_are_resolved_to_commits(pin: RunStage, hub: Hub, tiny_folders: dict[str, Path]) -> None:
    hub.commits["models/tiny/llama"] = {OTHER: tiny_folders["gpt2"]}
    hub.refs["models/tiny/llama"] = {"v1.0": OTHER, "refs/pr/7": OTHER}
    for revision in ("v1.0", "refs/pr/7", OTHER):
        section = pinned(pin("tiny/llama", "--revision", revision))
        assert section["revision"] == OTHER
        assert section["sha256"] == {"model.safetensors": digest(tiny_folders["gpt2"] / "model.safetensors")}
    assert pinned(pin("tiny/llama"))["revision"] == REVISION


def test_a_pin_stays_at_its_commit_while_the_branch_moves(
    project: Path, pin: RunStage, hub: Hub, run_stage: RunStage, tiny_folders: dict[str, Path]
) -> None:
    assert pin("tiny/llama", "--write").status == 0
    hub.commits["models/tiny/llama"] = {OTHER: tiny_folders["gpt2"]}
    hub.refs["models/tiny/llama"] = {"main": OTHER}
    assert run_stage("download", "model").status == 0
    assert json.loads((project / "data/model/config.json").read_text())["model_type"] == "llama"


def test_a_pin_whose_commit_is_gone_is_reported(
    project: Path, pin: RunStage, hub: Hub, run_stage: RunStage, tiny_folders: dict[str, Path]
) -> None:
    assert pin("tiny/llama", "--write").status == 0
    del hub.repositories["models/tiny/llama"]
    hub.commits["models/tiny/llama"] = {OTHER: tiny_folders["gpt2"]}
    finished = run_stage("download", "model")
    assert finished.status == 1
    assert f"has no public revision {REVISION} (404)" in finished.err


@pytest.mark.parametrize("name", ["params.yaml", "studies/gpt2.yaml"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("item", ["model", "distilled"])
def test_writing_keeps_every_other_byte(project: Path, pin: RunStage, name: str, line_end: str, item: str) -> None:
    before = (ROOT / name).read_text().replace("\n", line_end)
    path = project / "params.yaml"
    path.write_bytes(before.encode())
    section = pin("tiny/llama", "--as", item).out.replace("\n", line_end)
    finished = pin("tiny/llama", "--as", item, "--write")
    assert finished.out == f"params.yaml: {item} is tiny/llama at {REVISION}; `dvc repro` runs what reads it\n"
    after = path.read_bytes().decode()
    head, _, rest = before.partition(f"{line_end}{item}:")
    next_section = {"model": f"{line_end}{line_end}text:", "distilled": None}[item]
    tail = next_section + rest.split(next_section)[1] if next_section else ""
    assert after == head + line_end + section.removesuffix(line_end) * bool(tail) + section * (not tail) + tail
    assert load_params(path).model_dump()[item]["repo"] == "tiny/llama"


def test_comments_before_the_next_section_stay(project: Path, pin: RunStage) -> None:
    path = project / "params.yaml"
    write_params(project, changed_params({"model": None, "text": None}))
    rest = path.read_text()
    text = "# On the text.\n\n# More.\ntext: {source: local, path: mine/text.txt} # mine\n"
    path.write_text(f"model: # old\n  source: local # old\n  # old\n\n  path: mine/model\n\n{text}{rest}")
    section = pin("tiny/llama").out
    assert pin("tiny/llama", "--write").status == 0
    assert path.read_text() == f"{section}\n{text}{rest}"


def test_params_that_would_be_wrong_are_not_written(project: Path, pin: RunStage) -> None:
    path = project / "params.yaml"
    write_params(project, changed_params({"prune.sparsity": 2}))
    before = path.read_bytes()
    assert_one_line(pin("tiny/llama", "--write"), "params.yaml: prune.sparsity: got 2, takes", status=2)
    assert path.read_bytes() == before
    path.unlink()
    assert_one_line(pin("tiny/llama", "--write"), "params.yaml: not found; run from the top", status=2)
    assert not path.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (json.dumps(TINY_PARAMS), "model shares lines with other sections"),
        ("text: {}\n", "has no section model that can be replaced"),
        ("- model\n", "has no section model that can be replaced"),
        ("model: &a {source: none}\ndistilled: *a\n", "model shares lines with other sections"),
    ],
    ids=["one line", "missing", "a list", "an anchor"],
)
def test_a_section_without_lines_of_its_own_is_left(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=says):
        replace_section("model", "model:\n  source: local\n  path: x\n", path)
    assert path.read_text() == text


def test_a_data_set_with_splits_columns_and_classes(
    project: Path, pin: RunStage, hub: Hub, run_stage: RunStage
) -> None:
    features = Features({"review": Value("string"), "labels": ClassLabel(names=["bad", "good"])})
    folder = project / "set" / "plain_text"
    folder.mkdir(parents=True)
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "unsupervised-00000-of-00001"):
        rows = {"review": [row["text"] for row in reviews(name, 300)], "labels": [row % 2 for row in range(300)]}
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{name}.parquet")
    (folder.parent / "README.md").write_text("not data")
    hub.repositories["datasets/tiny/set"] = folder.parent
    section = pinned(pin("tiny/set", "--as", "reviews"))
    train = [f"plain_text/train-0000{part}-of-00002.parquet" for part in (0, 1)]
    test = ["plain_text/test-00000-of-00001.parquet"]
    assert section == {
        "source": "hub",
        "path": "data/none",
        "repo": "tiny/set",
        "revision": REVISION,
        "sha256": {name: digest(folder.parent / name) for name in (*test, *train)},
        "files": {"train": train, "test": test},
        "format": "table",
        "columns": {"text": "review", "label": "labels"},
        "classes": ["bad", "good"],
    }
    assert list(section) == [
        *("source", "path", "repo", "revision", "sha256"),
        *("files", "format", "columns", "classes"),
    ]
    assert pin("tiny/set", "--as", "reviews", "--write").status == 0
    assert run_stage("download", "reviews") == Finished(0, "", "")
    rows = pd.read_parquet(project / "data/reviews/rows.parquet")
    assert rows["split"].value_counts().to_dict() == {"train": 600, "test": 300}


def test_documents_are_those_of_the_test_split(
    project: Path, pin: RunStage, serve: Callable[..., None], run_stage: RunStage
) -> None:
    rows = [{"id": row, "article": prose(30, row), "highlights": prose(4, row)} for row in range(5)]
    files = {f"3.0.0/{split}-00000-of-00001.parquet": rows for split in ("train", "validation", "test")}
    serve(files | {"1.0.0/test-00000-of-00001.parquet": rows})
    finished = pin("tiny/set", "--as", "documents", "--config", "3.0.0", "--write")
    assert finished.status == 0, finished.err
    section = load_params().documents.model_dump()
    assert section["files"] == {"test": ["3.0.0/test-00000-of-00001.parquet"]}
    assert section["columns"] == {"text": "article", "summary": "highlights"}
    assert run_stage("download", "documents") == Finished(0, "", "")
    assert pd.read_parquet(project / "data/documents/rows.parquet")["text"].tolist() == [row["article"] for row in rows]


def test_a_text_is_scored_on_validation_where_there_is_no_test(
    project: Path, pin: RunStage, serve: Callable[..., None], run_stage: RunStage
) -> None:
    serve(
        {f"{name}.jsonl": [{"content": f"{name} {prose(9, row)}"} for row in range(4)] for name in ("train", "valid")}
    )
    finished = pin("tiny/set", "--as", "text")
    assert finished.err == "tiny/set: there is no test split, so the validation split is scored\n"
    assert pinned(finished)["files"] == {"train": ["train.jsonl"], "test": ["valid.jsonl"]}
    assert pin("tiny/set", "--as", "text", "--write").status == 0
    assert run_stage("download", "text") == Finished(0, "", "")
    rows = pd.read_parquet(project / "data/text/rows.parquet")
    assert rows["document"].tolist() == [f"{split}/{row}" for split in ("train", "test") for row in range(4)]


def test_wikitext_is_a_format_of_its_own(
    project: Path, pin: RunStage, serve: Callable[..., None], run_stage: RunStage
) -> None:
    lines = ["", " = One = ", "", " First. ", "", " = Two = ", "", " Second. "]
    serve({f"raw/{split}-00000-of-00001.parquet": [{"text": line} for line in lines] for split in ("train", "test")})
    assert pin("tiny/set", "--as", "text", "--format", "wikitext", "--write").status == 0
    assert run_stage("download", "text").status == 0
    assert len(pd.read_parquet(project / "data/text/rows.parquet")) == 4


def test_everything_can_be_named(project: Path, pin: RunStage, serve: Callable[..., None], run_stage: RunStage) -> None:
    rows = [{"body": row["text"], "kind": ("no", "yes")[row["label"]], "text_de": "-"} for row in reviews("a", 60)]
    serve({"part[1].csv": rows[:40], "part[2].csv": rows[40:], "notes.txt": "no data"})
    options = ["--files", "train=*1*,test=*2*", "--columns", "text=body,label=kind", "--classes", "no,yes"]
    finished = pin("tiny/set", "--as", "reviews", *options, "--write")
    assert finished.status == 0, finished.err
    assert load_params().reviews.model_dump()["files"] == {"train": ["part[1].csv"], "test": ["part[2].csv"]}
    assert run_stage("download", "reviews") == Finished(0, "", "")
    found = pd.read_parquet(project / "data/reviews/rows.parquet")
    assert found["split"].value_counts().to_dict() == {"train": 40, "test": 20}


@pytest.mark.parametrize(
    ("names", "config", "files"),
    [
        (
            ["en/train/0.csv", "en/test/0.csv", "de/train/0.csv", "de/test/0.csv"],
            "en",
            ["en/train/0.csv", "en/test/0.csv"],
        ),
        (["train_a.csv", "test_a.csv", "train_b.csv", "test_b.csv"], "b", ["train_b.csv", "test_b.csv"]),
        (
            ["x/a-train-00000-of-00001-0f1e.csv", "x/a-test.csv", "y/train.csv"],
            "x",
            ["x/a-train-00000-of-00001-0f1e.csv", "x/a-test.csv"],
        ),
    ],
    ids=["folders", "parts of names", "prefix"],
)
def test_one_of_several_configurations_has_to_be_chosen(
    pin: RunStage, serve: Callable[..., None], names: list[str], config: str, files: list[str]
) -> None:
    serve({name: reviews(name) for name in names})
    options = ["--as", "reviews", "--classes", "bad,good"]
    assert_one_line(pin("tiny/set", *options), "there are several configurations; choose with --config: ", status=2)
    assert_one_line(
        pin("tiny/set", *options, "--config", "none"), "there is no configuration 'none'; choose with", status=2
    )
    section = pinned(pin("tiny/set", *options, "--config", config))
    assert [name for group in section["files"].values() for name in group] == files


def test_of_several_formats_the_one_with_most_splits_is_taken(pin: RunStage, serve: Callable[..., None]) -> None:
    names = ["train.csv", "test.csv", "train.jsonl", "test.jsonl", "train.parquet"]
    serve({name: reviews(name) for name in names})
    finished = pin("tiny/set", "--as", "text")
    assert finished.err == "tiny/set: there are files in .parquet, .jsonl, .csv; those in .jsonl are taken\n"
    assert pinned(finished)["files"] == {"train": ["train.jsonl"], "test": ["test.jsonl"]}


SPLIT = {"train.csv": reviews("train"), "test.csv": reviews("test")}


@pytest.mark.parametrize(
    ("files", "arguments", "says"),
    [
        ({"a.csv": []}, (), "no file has the name of a split (a.csv); name the files with --files"),
        ({"train.csv": []}, (), "no file has the name of the split test, which reviews needs"),
        (SPLIT, ("--files", "test=test*"), "no file has the name of the split train, which reviews needs"),
        (SPLIT, ("--files", "train=x*"), "--files: no file matches train=x*; there are test.csv, train.csv"),
        (SPLIT, ("--files", "dev=x*"), "--files: got 'dev=x*', takes train=… and test=…"),
        (SPLIT, ("--files", "test=t*", "--config", "x"), "--config: --files names the files already"),
        (SPLIT, (), "does not name its classes, only the labels 0, 1; name the classes with --classes"),
        (SPLIT, ("--columns", "text=body"), "--columns: there is no column 'body' but text, label"),
        (SPLIT, ("--columns", "body"), "--columns: got 'body', takes text=… and label=…"),
        (SPLIT, ("--classes", "a,a"), "reviews.classes: got ['a', 'a']"),
        (SPLIT, ("--format", "wikitext"), "--format: goes with --as text, not with reviews"),
        (
            {name: [{"kind": 1, "body": "a"}] for name in SPLIT},
            (),
            "no column is known as the text; name it with --columns text=COLUMN, one of kind, body",
        ),
        (
            {name: [{"sentence": 1, "review": "a", "label": 1}] for name in SPLIT},
            (),
            "several columns may be the text; name it with --columns text=COLUMN, one of sentence, review",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_names_do_not_tell_is_asked_for(
    pin: RunStage, serve: Callable[..., None], files: dict[str, Any], arguments: tuple[str, ...], says: str
) -> None:
    serve(files)
    assert_one_line(pin("tiny/set", "--as", "reviews", *arguments), says, status=2)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"data.tar.gz": "x", "README.md": "x"},
            "has no Parquet, JSON Lines or CSV file but .gz, .md; try the hub's own",
        ),
        ({"test.jsonl": "no json"}, "test.jsonl: not readable as jsonl"),
        ({"test.parquet": "no table"}, "test.parquet: not readable as parquet"),
        ({"test.csv": ""}, "test.csv: not readable as csv"),
    ],
    ids=["archive", "jsonl", "parquet", "csv"],
)
def test_files_that_are_no_tables(pin: RunStage, serve: Callable[..., None], files: dict[str, str], says: str) -> None:
    serve(files)
    assert_one_line(pin("tiny/set", "--as", "text"), says)


def test_the_hubs_own_conversion_is_a_revision(pin: RunStage, hub: Hub, project: Path) -> None:
    for split in ("train", "test"):
        (project / "converted" / "default" / split).mkdir(parents=True)
        pd.DataFrame(reviews(split)).to_parquet(project / "converted" / "default" / split / "0000.parquet")
    (project / "archive").mkdir()
    hub.repositories["datasets/tiny/set"] = project / "archive"
    hub.commits["datasets/tiny/set"] = {OTHER: project / "converted"}
    hub.refs["datasets/tiny/set"] = {"refs/convert/parquet": OTHER}
    section = pinned(pin("tiny/set", "--as", "text", "--revision", "refs/convert/parquet"))
    assert section["revision"] == OTHER
    assert section["files"] == {split: [f"default/{split}/0000.parquet"] for split in ("train", "test")}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["pytorch_model.bin"], "has no model.safetensors but pytorch_model.bin; convert the model first"),
        (["config.json"], "has no model.safetensors but no weights at all; convert the model first"),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter; merge it into its base"),
        (["a.Q4_0.gguf", "a.Q8_0.gguf"], "holds only GGUF files; download one (a.Q4_0.gguf, a.Q8_0.gguf), and give"),
    ],
    ids=["pickles", "nothing", "adapter", "GGUF"],
)
def test_models_that_have_to_be_converted(project: Path, pin: RunStage, hub: Hub, names: list[str], says: str) -> None:
    folder = project / "other"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"-")
    hub.repositories["models/tiny/llama"] = folder
    assert_one_line(pin("tiny/llama"), f"tiny/llama: {says}")


@pytest.mark.parametrize(
    ("refused", "arguments", "says"),
    [
        (
            None,
            ("tiny/none",),
            "has no public model of this name (404); correct the name, --as and --revision, or log in",
        ),
        (None, ("tiny/llama", "--as", "text"), "has no public data set of this name (404); correct the name"),
        (None, ("tiny/llama", "--revision", "v2"), "has no public revision v2 (404); correct the name"),
        ((401, ""), ("tiny/llama",), "has no public model of this name (401)"),
        ((403, ""), ("tiny/llama",), "has no public model of this name (403)"),
        ((403, "GatedRepo"), ("tiny/llama",), "is gated; accept its terms at "),
        ((500, ""), ("tiny/llama",), "cannot be reached; check the network"),
    ],
    ids=["name", "kind", "revision", "private", "forbidden", "gated", "broken"],
)
def test_what_the_hub_refuses(
    pin: RunStage, hub: Hub, refused: tuple[int, str] | None, arguments: tuple[str, ...], says: str
) -> None:
    if refused:
        hub.refused["models/tiny/llama"] = refused
    assert_one_line(pin(*arguments), says)


def test_a_gated_model_is_pinned_with_a_remark(pin: RunStage, hub: Hub, run_stage: RunStage) -> None:
    """Its listing is public; its files are not."""
    hub.gated["models/tiny/llama"] = "manual"
    finished = pin("tiny/llama", "--write")
    assert finished.status == 0
    assert finished.err.startswith("tiny/llama: is gated; ")
    finished = run_stage("download", "model")
    assert finished.status == 1
    assert f"is gated; accept its terms at {hub.endpoint}/tiny/llama, then log in with `hf auth login`" in finished.err


def test_names_that_cannot_be(pin: RunStage) -> None:
    assert_one_line(pin("https://huggingface.co/tiny/llama"), "takes owner/name", status=2)


def test_without_the_network(pin: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert_one_line(pin("tiny/llama"), "the hub at http://127.0.0.1:9 cannot be reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_one_line(pin("tiny/llama"), "HF_HUB_OFFLINE is set; unset it")


def test_it_is_a_command(project: Path, hub: Hub, tiny_folders: dict[str, Path]) -> None:
    """In a process of its own, which reads the hub's address from the environment."""
    done = subprocess.run(
        ["python", "-m", "stages.pin", "tiny/llama", "--write"],
        env={**COLD, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(project / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    weights = tiny_folders["llama"] / "model.safetensors"
    assert load_params().model.model_dump()["sha256"] == {"model.safetensors": digest(weights)}
