"""The committed params and studies, against the schema and the numbers that they are to give."""

from pathlib import Path

import pytest
from conftest import ROOT, TINY_PARAMS, changed_params, write_params

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.params import Params, load_params

STUDIES = sorted((ROOT / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *STUDIES], ids=lambda path: path.name)
def test_committed_params_are_valid_and_complete(path: Path) -> None:
    params = load_params(path)
    assert set(Params.model_fields) == set(dict(params))
    for item in ("model", "text", "reviews", "documents"):
        assert getattr(params, item).path == "data/none"  # nothing on anybody's own disk


def test_the_gpt2_study_is_the_published_one() -> None:
    params = load_params(ROOT / "studies" / "gpt2.yaml")
    assert round(params.prune.sparsity * 84_934_656) == 20_439_808
    assert params.classify.mode == "all"
    assert (params.classify.train_examples, params.classify.test_examples) == (20_000, 5_000)
    assert (params.classify.max_tokens, params.classify.epochs, params.classify.learning_rate) == (128, 1, 2e-5)
    assert (params.summarize.examples, params.summarize.order) == (100, "first")
    assert (params.summarize.num_beams, params.summarize.max_new_tokens) == (3, 60)
    assert params.summarize.no_repeat_ngram_size == 2


def test_numbers_are_yaml_1_2_as_dvc_reads_them(tmp_path: Path) -> None:
    write_params(tmp_path, TINY_PARAMS)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.001", "learning_rate: 2e-5"))
    assert load_params(path).classify.learning_rate == 2e-5


def test_whole_numbers_are_taken_where_numbers_are(tmp_path: Path) -> None:
    write_params(tmp_path, changed_params({"prune.sparsity": 0}))
    assert load_params(tmp_path / "params.yaml").prune.sparsity == 0


def test_the_message_counts_the_other_errors(tmp_path: Path) -> None:
    write_params(tmp_path, changed_params({"prune.sparsity": 2, "seed": -1}))
    with pytest.raises(ParamsError, match=r"seed: got -1, .* \(and 1 more\)$"):
        load_params(tmp_path / "params.yaml")
