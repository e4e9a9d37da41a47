"""Choosing within a matrix, against a sort of each group by itself."""

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.lib.files.errors import UserError
from stages.lib.pruning.methods import resolve_scope
from stages.lib.recipes.choosing import choose, pattern_of, smallest_of_rows

SCORES = st.sampled_from([0.0, 0.5, 1.0, 2.0])


@settings(deadline=None)
@given(st.data())
def test_the_smallest_of_each_row(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 9)))
    scores = data.draw(hnp.arrays(np.float32, shape, elements=SCORES))
    counts = data.draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1])))
    found = smallest_of_rows(scores, counts)
    for row, count, mask in zip(scores, counts, found, strict=True):
        first = sorted(range(len(row)), key=lambda column: (row[column], column))[:count]
        assert set(np.flatnonzero(mask)) == set(first)


@settings(deadline=None)
@given(st.data())
def test_exactly_k_in_every_scope(data: st.DataObject) -> None:
    rows, groups, m = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(2, 6)))
    n = data.draw(st.integers(1, m - 1))
    scores = data.draw(hnp.arrays(np.float32, (rows, groups * m), elements=SCORES))
    k = data.draw(st.integers(0, scores.size))
    layer = choose(scores, "layer", k)
    assert layer.sum() == k
    assert k in (0, scores.size) or scores[layer].max() <= scores[~layer].min()
    row = choose(scores, "row", k)
    assert row.sum() == k
    assert np.abs(row.sum(axis=1) - k / rows).max() < 1
    pattern = choose(scores, f"{n}:{m}", rows * groups * (m - n))
    assert (pattern.reshape(-1, m).sum(axis=1) == m - n).all()
    for chosen, group in zip(pattern.reshape(-1, m), scores.reshape(-1, m), strict=True):
        assert group[chosen].max() <= group[~chosen].min()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_layers_are_those_of_torch(share: float) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(31, 17)
    k = round(share * layer.weight.numel())
    found = choose(layer.weight.detach().abs().numpy(), "layer", k)
    torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=k)
    np.testing.assert_array_equal(found, layer.weight_mask.numpy() == 0)


def test_n_of_m_does_not_divide() -> None:
    with pytest.raises(UserError, match=r"prune\.scope: got '2:4', but 4 does not divide the 6 inputs of a matrix"):
        choose(np.ones((2, 6), np.float32), "2:4", 6)


@pytest.mark.parametrize("scope", ["0:4", "4:4", "5:4"])
def test_n_of_m_leaves_some_of_each(scope: str) -> None:
    with pytest.raises(ValueError, match="N is from 1 to below M"):
        pattern_of(scope)


def test_scopes_of_methods() -> None:
    assert pattern_of("2:4") == (2, 4)
    assert pattern_of("row") is None
    assert resolve_scope("magnitude", "auto") == "global"
    assert resolve_scope("wanda", "auto") == "row"
    assert resolve_scope("wanda", "4:8") == "4:8"
    with pytest.raises(ValueError, match="wanda has row, layer, N:M"):
        resolve_scope("wanda", "global")
    with pytest.raises(ValueError, match="sparsegpt has layer"):
        resolve_scope("sparsegpt", "2:4")
