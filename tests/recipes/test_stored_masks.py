"""Masks as packed bits: round trips, their size, and that a changed bit is never used."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, load
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages.lib.files.errors import UserError
from stages.lib.recipes.masks import Mask
from stages.lib.recipes.recipe import write_recipe
from stages.lib.recipes.stored_mask import MASKS, StoredMask
from stages.lib.weights.checkpoint import Checkpoint

SHAPES = st.lists(hnp.array_shapes(min_dims=1, max_dims=2, max_side=40), min_size=1, max_size=4)


def base_of(masks: Sequence[tuple[str, Mask]]) -> Any:
    """A checkpoint with only what a mask needs: its name, and the shapes of its prunable tensors."""
    shapes = {name: mask.shape for name, mask in masks}
    return SimpleNamespace(sha256="0" * 64, structure=SimpleNamespace(prunable=list(shapes)), shape=shapes.__getitem__)


@settings(deadline=None)
@given(data=st.data())
def test_round_trip(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    masks = [(str(number), data.draw(hnp.arrays(np.bool_, shape))) for number, shape in enumerate(data.draw(SHAPES))]
    folder = tmp_path_factory.mktemp("masks")
    recipe = StoredMask.store(base_of(masks), "wanda", masks, folder)
    bits = b"".join(np.packbits(mask).tobytes() for _, mask in masks)
    assert recipe.mask_sha256 == hashlib.sha256(bits).hexdigest()
    assert recipe.pruned == sum(int(mask.sum()) for _, mask in masks)
    size = (folder / MASKS).stat().st_size
    assert size < len(bits) if recipe.compressed else size == len(bits)
    read = list(recipe.masks(base_of(masks), folder))
    for (name, mask), (name_read, mask_read) in zip(masks, read, strict=True):
        assert name == name_read
        np.testing.assert_array_equal(mask, mask_read)


@pytest.mark.parametrize(("share", "compresses"), [(0.1, True), (0.5, False)])
def test_bits_are_compressed_where_that_is_smaller(tmp_path: Path, share: float, compresses: bool) -> None:
    mask = np.random.default_rng(0).random((1000, 800)) < share
    assert StoredMask.store(base_of([("a", mask)]), "wanda", [("a", mask)], tmp_path).compressed == compresses
    size = (tmp_path / MASKS).stat().st_size
    assert size <= mask.size / 8
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert size >= 0.98 * entropy * mask.size / 8  # no code is shorter


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_any_change_of_the_file_is_refused(tiny_folder: Path, tmp_path: Path, share: float) -> None:
    base, recipe = Checkpoint(tiny_folder), tmp_path / "recipe"
    recipe.mkdir()
    generator = np.random.default_rng(1)
    masks = [(name, generator.random(base.shape(name)) < share) for name in Checkpoint(tiny_folder).structure.prunable]
    stored = StoredMask.store(base, "wanda", masks, recipe)
    write_recipe(stored, recipe)
    assert stored.compressed == (share == 0.1)
    loaded = load(tiny_folder, recipe, CPU, keep_masks=True)
    for name, mask in masks:
        assert torch.equal(loaded.masks[name], torch.from_numpy(mask))
        assert not loaded.model.get_parameter(name)[loaded.masks[name]].any()
    content = (recipe / MASKS).read_bytes()
    flips = [(int(place), 1 << int(bit)) for place, bit in generator.integers(0, (len(content), 8), (40, 2))]
    damages = [content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :] for place, bit in flips]
    harmless = 0
    for damaged in (*damages, b"", content[:-1], content + b"\0"):
        (recipe / MASKS).write_bytes(damaged)
        try:
            read = load(tiny_folder, recipe, CPU, keep_masks=True).masks
        except UserError as error:
            assert "`python -m stages.verify` prints the fix" in str(error)
        else:  # a bit of the zstd frame that means nothing
            harmless += 1
            assert all(torch.equal(read[name], loaded.masks[name]) for name, _ in masks)
    assert harmless <= 3 * stored.compressed
    (recipe / MASKS).unlink()
    with pytest.raises(UserError, match=r"lacks masks\.bin"):
        load(tiny_folder, recipe, CPU)
