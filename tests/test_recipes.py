"""Recipes: round trips, refusal of other bases and of corruption, and the model that comes out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import CPU, TINY
from transformers import AutoModelForCausalLM

from stages.lib.checkpoint import Checkpoint
from stages.lib.errors import UserError
from stages.lib.families import prunable_weights
from stages.lib.models import load
from stages.lib.recipes import prune_by_magnitude, pruned_masks, read_recipe, write_recipe


@pytest.fixture
def recipe(tiny_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    write_recipe(prune_by_magnitude(tiny_folder, Checkpoint(tiny_folder), 3000), folder)
    return folder


def test_round_trip(tiny_folder: Path, recipe: Path) -> None:
    read = read_recipe(recipe)
    assert read == prune_by_magnitude(tiny_folder, Checkpoint(tiny_folder), 3000)
    assert sum(int(mask.sum()) for _, mask in pruned_masks(read, tiny_folder)) == 3000


def test_loaded_model_is_the_base_with_its_smallest_weights_zero(tiny_folder: Path, recipe: Path) -> None:
    dense = dict(AutoModelForCausalLM.from_pretrained(tiny_folder).named_parameters())
    loaded = load(tiny_folder, recipe, CPU, keep_masks=True)
    names = prunable_weights(tiny_folder)
    bound = torch.cat([dense[name].abs().flatten() for name in names]).kthvalue(3000).values
    for name, parameter in loaded.model.named_parameters():
        if name in names:
            expected = torch.where(dense[name].abs() <= bound, 0, dense[name])
            torch.testing.assert_close(parameter, expected, rtol=0, atol=0)
            torch.testing.assert_close(loaded.masks[name], parameter == 0)
        else:
            torch.testing.assert_close(parameter, dense[name], rtol=0, atol=0)


def test_original_is_the_base(tiny_folder: Path, original: Path) -> None:
    dense = dict(AutoModelForCausalLM.from_pretrained(tiny_folder).named_parameters())
    for name, parameter in load(tiny_folder, original, CPU).model.named_parameters():
        torch.testing.assert_close(parameter, dense[name], rtol=0, atol=0)


def test_prunable_names_are_in_state_dict_order(tiny_folder: Path) -> None:
    family = json.loads((tiny_folder / "config.json").read_text())["model_type"]
    names = prunable_weights(tiny_folder)
    in_order = [name for name in TINY[family]().state_dict() if name in names]
    assert names == in_order
    blocks = [
        name for name, p in TINY[family]().named_parameters() if p.ndim == 2 and (".h." in name or ".layers." in name)
    ]
    assert set(names) == set(blocks)


def test_another_base_is_refused(
    tiny_folder: Path, recipe: Path, tmp_path: Path, corrupt: Callable[[Path], None]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    corrupt(other / "model.safetensors")
    with pytest.raises(UserError, match="the recipe is for base"):
        load(other, recipe, CPU)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mask_sha256", "0" * 64),
        ("pruned", 2999),
        ("ties", 0),
        ("threshold_bits", "0x3d000000"),
    ],
)
def test_a_mask_that_differs_from_its_digest_is_refused(
    tiny_folder: Path, recipe: Path, key: str, value: object
) -> None:
    content = json.loads((recipe / "recipe.json").read_text())
    (recipe / "recipe.json").write_text(json.dumps(content | {key: value}))
    with pytest.raises(UserError, match="the recomputed mask is not the recipe's"):
        load(tiny_folder, recipe, CPU)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"kind": "magnitude"}',
        b'{"kind": "lottery"}',
        b'{"kind": "original", "extra": 1}',
        b'{"kind": "magnitude", "base_sha256": "x", "threshold_bits": "0x0", "ties": -1, "pruned": 1}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_recipe_is_refused(tiny_folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(tiny_folder, tmp_path, CPU)


def test_a_missing_recipe_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        load(tiny_folder, tmp_path, CPU)
