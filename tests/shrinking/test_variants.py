"""Variants: their names, and the groups of blocks that they take together."""

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.plumbing.items import Absent
from stages.lib.plumbing.params import load_params
from stages.lib.recipes.merged import block_groups
from stages.lib.shrinking.variants import Variant, parse_variant


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("merged_4", Variant("merged_4", "merged", 4)),
        ("merged_10-anchor", Variant("merged_10-anchor", "merged-anchor", 10)),
        ("compressed_3", Variant("compressed_3", "compressed", 3)),
        ("pruned-tied-head", Variant("pruned-tied-head", "pruned-tied-head")),
        ("distilled", Variant("distilled", "distilled")),
    ],
)
def test_names(name: str, variant: Variant) -> None:
    assert parse_variant(name) == variant


@pytest.mark.parametrize(
    "name", ["", "merged", "merged_", "merged_0", "merged_-1", "merged_1.5", "merged_04", "compressed_4-anchor", "../x"]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="is none of them"):
        parse_variant(name)


@given(depth=st.integers(1, 60), n=st.integers(1, 70))
def test_groups_are_the_blocks_in_order(depth: int, n: int) -> None:
    groups = block_groups(depth, n)
    assert [block for group in groups for block in group] == list(range(depth))
    assert all(len(group) == n for group in groups[:-1])
    assert len(groups[-1]) <= n


@pytest.mark.parametrize("file", ["params.yaml", "studies/gpt2.yaml"])
def test_both_studies_have_every_model_of_the_published_one(file: str) -> None:
    params = load_params(ROOT / file)
    published = {f"{method}_{n}" for method in ("merged", "compressed") for n in (4, 6, 8, 10)}
    assert set(params.compare.variants) >= published | {"pruned-tied-head"}
    assert isinstance(params.distilled, Absent) == ("distilled" not in params.compare.variants)
    assert params.sensitivity.alone == params.prune.sparsity  # the study's: two places, one number
    sparsities = params.sensitivity.sparsities
    assert len(sparsities) >= 8
    assert (sparsities[0], sparsities[-1]) == (0, 0.6)
