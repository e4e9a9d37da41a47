"""Sharing through a remote: a folder, and S3 as moto's server speaks it on the loopback."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from conftest import Finished, changed_params, write_params
from moto.server import ThreadedMotoServer
from repository import ALL, ENVIRONMENT, LIGHT, Repository, ran

BUCKET = "team"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """These credentials, and no others from wherever the machine may have some."""
    empty = tmp_path / "empty"
    empty.touch()
    for name, value in {
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(empty),
        "AWS_SHARED_CREDENTIALS_FILE": str(empty),
    }.items():
        monkeypatch.setitem(ENVIRONMENT, name, value)
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3() -> Iterator[str]:
    """The endpoint of an S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    yield endpoint
    server.stop()


@pytest.fixture
def repository(finished_repository: Repository, tmp_path: Path) -> Repository:
    return finished_repository.copy(tmp_path / "repository")


def add_remote(repository: Repository, url: str, endpoint: str | None = None) -> None:
    repository.dvc("remote", "add", "--default", "team", url)
    if endpoint:
        repository.dvc("remote", "modify", "team", "endpointurl", endpoint)
    repository.commit("Share results")


def clone(repository: Repository, folder: Path) -> Repository:
    repository.git("clone", "-q", str(repository.folder), str(folder))
    return Repository(folder)


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, repository: Repository, tmp_path: Path) -> Repository:
    """A repository with a remote that has everything."""
    if request.param == "folder":
        add_remote(repository, str(tmp_path / "remote"))
    else:
        add_remote(repository, f"s3://{BUCKET}/pruning", request.getfixturevalue("s3"))
    repository.dvc("push", "--run-cache")
    return repository


def test_a_colleague_computes_nothing(shared: Repository, tmp_path: Path) -> None:
    for name, commands in {
        "pull": (("pull", "--run-cache"), ("repro",)),
        "repro": (("repro", "--pull"),),
    }.items():
        colleague = clone(shared, tmp_path / name)
        assert not (colleague.folder / "data" / "model").exists()
        for command in commands:
            assert ran(colleague.dvc(*command)) == set()
        assert colleague.results() == shared.results()
        assert colleague.git("status", "--porcelain") == ""
        assert colleague.run("python", "-m", "stages.verify").status == 0


def test_a_setting_adds_no_model_to_the_remote(repository: Repository, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    add_remote(repository, str(remote))
    repository.dvc("push", "--run-cache")
    before = {path: path.stat().st_size for path in remote.rglob("*") if path.is_file()}
    repository.dvc("exp", "run", "-S", "prune.sparsity=0.4")
    repository.dvc("push", "--run-cache")
    added = [path.stat().st_size for path in remote.rglob("*") if path.is_file() and path not in before]
    assert added
    assert max(added) < min(50_000, max(before.values()))
    repository.commit("Prune to 0.4")
    colleague = clone(repository, tmp_path / "colleague")
    colleague.dvc("pull", "--run-cache")
    assert ran(colleague.dvc("repro")) == set()


@pytest.mark.slow
def test_an_experiment_travels_without_a_commit(repository: Repository, tmp_path: Path) -> None:
    """Its metrics through Git, the rest through the remote."""
    add_remote(repository, str(tmp_path / "remote"))
    repository.dvc("push")
    sender, receiver = (clone(repository, tmp_path / name) for name in ("sender", "receiver"))
    sender.dvc("pull")
    sender.dvc("exp", "run", "--name", "to-40", "-S", "prune.sparsity=0.4")
    sender.dvc("exp", "push", "origin", "to-40")
    receiver.dvc("pull")
    receiver.dvc("exp", "pull", "origin", "to-40")
    receiver.dvc("exp", "apply", "to-40")
    assert ran(receiver.dvc("repro")) == set()
    assert receiver.results() == sender.results()
    assert "sparsity: 0.4" in (receiver.folder / "params.yaml").read_text()


@pytest.mark.slow
def test_two_compute_and_a_third_assembles(repository: Repository, tmp_path: Path) -> None:
    """No lock is in Git: the run caches that two clones pushed are all that the third has."""
    undisturbed = repository.results()
    add_remote(repository, str(tmp_path / "remote"))
    repository.git("rm", "-rq", "dvc.lock", "metrics", "report")
    repository.commit("Nothing computed yet")
    first, second, third = (clone(repository, tmp_path / name) for name in ("first", "second", "third"))
    done = ran(first.dvc("repro", "classify", "summarize@original", "sensitivity"))
    done |= ran(second.dvc("repro", "baseline-ppl", "post-ppl", "summarize@pruned", "measure-others"))
    assert done >= ALL - LIGHT
    for repository in (first, second):
        repository.dvc("push", "--run-cache")
    assert ran(third.dvc("repro", "--pull")) <= LIGHT
    assert third.results() == undisturbed


@pytest.mark.slow
def test_no_variants_and_an_experiment_outside_the_workspace(repository: Repository, tmp_path: Path) -> None:
    add_remote(repository, str(tmp_path / "remote"))
    write_params(repository.folder, changed_params({"compare.variants": []}))
    repository.dvc("repro")
    repository.commit("No variants")
    repository.dvc("push", "--run-cache")
    repository.dvc("exp", "run", "--temp", "--name", "to-40", "-S", "prune.sparsity=0.4")
    diff = json.loads(repository.dvc("metrics", "diff", "--json", "HEAD", "to-40"))
    assert diff["metrics/size/pruned.json"]["pruned_weights"]["new"] == round(0.4 * 18432)
    colleague = clone(repository, tmp_path / "colleague")
    colleague.dvc("pull", "--run-cache")
    assert ran(colleague.dvc("repro")) <= LIGHT
    assert colleague.run("python", "-m", "stages.verify").status == 0


@pytest.mark.slow
def test_a_subfolder_of_a_larger_repository(finished_repository: Repository, tmp_path: Path) -> None:
    """Without variants, and with an experiment outside the workspace, whose files nothing in Git or DVC makes there."""
    study = finished_repository.copy(tmp_path / "larger" / "study")
    shutil.rmtree(study.folder / ".git")
    for measured in study.folder.glob("data/predictions/*/*_2.parquet"):  # of variants that this study never had
        measured.unlink()
    Repository(study.folder.parent).git("init", "-q")
    write_params(study.folder, changed_params({"compare.variants": []}))
    study.dvc("repro")
    study.commit("A study in a folder of its own")
    study.dvc("exp", "run", "--temp", "--name", "to-40", "-S", "prune.sparsity=0.4")
    diff = json.loads(study.dvc("metrics", "diff", "--json", "HEAD", "to-40"))
    found = {path.rsplit("/", 1)[-1]: change for path, change in diff.items() if "size" in path}
    assert found["pruned.json"]["pruned_weights"]["new"] == round(0.4 * 18432)
    study.dvc("exp", "apply", "to-40")
    verified = study.run("python", "-m", "stages.verify")
    assert verified.status == 0, verified.out + verified.err


def push(repository: Repository) -> Finished:
    return repository.run("dvc", "push")


def test_missing_credentials_are_one_line(repository: Repository, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add_remote(repository, f"s3://{BUCKET}/pruning", s3)
    before = repository.results()
    for name in CREDENTIALS:
        monkeypatch.delitem(ENVIRONMENT, name)
    finished = push(repository)
    assert finished.status != 0
    errors = [line for line in finished.err.splitlines() if line.startswith("ERROR")]
    assert len(errors) == 1
    assert "credentials" in errors[0].lower()
    assert "Traceback" not in finished.err
    assert repository.results() == before


def test_a_remote_that_was_gone_for_a_moment(repository: Repository, s3: str, tmp_path: Path) -> None:
    add_remote(repository, f"s3://{BUCKET}/pruning", "http://127.0.0.1:9")
    repository.dvc("config", "--local", "remote.team.read_timeout", "2")
    finished = push(repository)
    assert finished.status != 0
    assert "Traceback" not in finished.err
    repository.dvc("remote", "modify", "team", "endpointurl", s3)
    repository.commit("The remote is back")
    repository.dvc("push", "--run-cache")
    colleague = clone(repository, tmp_path / "colleague")
    colleague.dvc("pull", "--run-cache")
    assert ran(colleague.dvc("repro")) == set()
    assert colleague.results() == repository.results()
