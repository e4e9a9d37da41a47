"""Recipes: round trips, refusal of other bases and of corruption, and the model that comes out."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, TINY, load, magnitude_recipe
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.recipes.changed import Changed
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.magnitude import MagnitudePruned, weights_in
from stages.lib.recipes.merged import MergedFeedForward, merge, write_permutations
from stages.lib.recipes.other_checkpoint import OtherCheckpoint
from stages.lib.recipes.recipe import Recipe, materialize, read_recipe, write_changed, write_recipe
from stages.lib.recipes.scoped_mask import ScopedMask
from stages.lib.recipes.stored_mask import StoredMask
from stages.lib.weights.checkpoint import Checkpoint


@pytest.fixture
def recipe(tiny_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    write_recipe(magnitude_recipe(tiny_folder, 3000), folder)
    return folder


def test_round_trip(tiny_folder: Path, recipe: Path) -> None:
    read = read_recipe(recipe)
    assert read == magnitude_recipe(tiny_folder, 3000)
    assert isinstance(read, MagnitudePruned)
    assert sum(int(mask.sum()) for _, mask in read.checked_masks(Checkpoint(tiny_folder), recipe)) == 3000


def test_loaded_model_is_the_base_with_its_smallest_weights_zero(tiny_folder: Path, recipe: Path) -> None:
    dense = dict(AutoModelForCausalLM.from_pretrained(tiny_folder).named_parameters())
    loaded = load(tiny_folder, recipe, CPU, keep_masks=True)
    names = Checkpoint(tiny_folder).structure.prunable
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


def test_a_damaged_base_is_refused_by_the_original_too(
    tiny_folder: Path, original: Path, tmp_path: Path, corrupt: Callable[[Path], None]
) -> None:
    for file in sorted(path.name for path in tiny_folder.iterdir()):
        base = tmp_path / file
        shutil.copytree(tiny_folder, base)
        corrupt(base / file)
        with pytest.raises(UserError, match=r"damaged, does not match SHA256SUMS; `python -m stages\.verify`"):
            load(base, original, CPU)
        (base / file).unlink()
        with pytest.raises(UserError, match=r"damaged, does not match SHA256SUMS|not found|lacks SHA256SUMS"):
            load(base, original, CPU)


def test_prunable_names_are_in_state_dict_order(tiny_folder: Path) -> None:
    family = json.loads((tiny_folder / "config.json").read_text())["model_type"]
    names = Checkpoint(tiny_folder).structure.prunable
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
    write_sums(other)
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
    with pytest.raises(UserError, match="the mask is not the recipe's"):
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
        b'{"kind": "kept-blocks", "base_sha256": "' + b"0" * 64 + b'", "blocks": []}',
        b'{"kind": "kept-blocks", "base_sha256": "' + b"0" * 64 + b'", "blocks": [-1]}',
        b'{"kind": "kept-blocks", "base_sha256": "' + b"0" * 64 + b'", "blocks": [2, 1]}',
        b'{"kind": "merged", "base_sha256": "' + b"0" * 64 + b'", "n": 0}',
        b'{"kind": "checkpoint", "folder": "../elsewhere", "sha256": "' + b"0" * 64 + b'"}',
        b'{"kind": "magnitude", "base_sha256": "x", "threshold_bits": "0x0", "ties": -1, "pruned": 1}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_recipe_is_refused(tiny_folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load(tiny_folder, tmp_path, CPU)


@pytest.mark.parametrize(("key", "value"), [("scope", "6:4"), ("scope", "3:7"), ("pruned_by_block", [10**6, 200])])
def test_fields_that_no_mask_has_are_refused(tiny_folder: Path, recipe: Path, key: str, value: object) -> None:
    """As after a flipped bit; the message is one line either way."""
    content = ScopedMask.of(Checkpoint(tiny_folder), "random", "row", [300, 200], seed=3).model_dump()
    (recipe / "recipe.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(UserError, match=r"damaged|does not divide|not the recipe's"):
        load(tiny_folder, recipe, CPU)


def test_a_missing_recipe_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found"):
        load(tiny_folder, tmp_path, CPU)


def change(recipe: Recipe, base: Path, folder: Path) -> Changed:
    """A recipe with all of its non-zero weights changed a little."""
    assert isinstance(recipe, StoredMask)
    write_recipe(recipe, folder)
    before = materialize(Checkpoint(base), folder).weights
    torch.manual_seed(0)
    after = {name: torch.where(old == 0, 0, old + 0.01 * torch.randn(old.shape)) for name, old in before.items()}
    return write_changed(recipe, after, "recovery", Checkpoint(base), folder)


def make(kind: str, base: Path, folder: Path) -> Recipe:
    """A recipe of each kind for a tiny base of two blocks."""
    folder.mkdir(exist_ok=True)
    recipe: Recipe
    if kind == "merged":
        structure = Checkpoint(base).structure
        neurons = structure.feed_forwards[0].neurons
        order = {1: np.arange(neurons, dtype=np.uint16)[::-1].copy()}
        digest = merge(load_file(base / "model.safetensors"), structure, 2, False, order)
        write_permutations(order, folder)
        recipe = MergedFeedForward(base_sha256=Checkpoint(base).sha256, n=2, anchor_only=False, merged_sha256=digest)
    elif kind == "kept-blocks":
        recipe = KeptBlocks(base_sha256=Checkpoint(base).sha256, blocks=[1])
    elif kind == "checkpoint":
        recipe = OtherCheckpoint(sha256=Checkpoint(base.parent / "distilled").sha256)
    elif kind == "mask":
        shapes = {name: Checkpoint(base).shape(name) for name in Checkpoint(base).structure.prunable}
        masks = [(name, np.arange(np.prod(shape)).reshape(shape) % 7 == 0) for name, shape in shapes.items()]
        recipe = StoredMask.store(Checkpoint(base), "wanda", masks, folder)
    elif kind == "scoped":
        recipe = ScopedMask.of(Checkpoint(base), "random", "row", [300, 200], seed=3)
    elif kind == "changed":
        recipe = change(make("mask", base, folder), base, folder)
    else:
        recipe = magnitude_recipe(base, 500, "tied-head")
    write_recipe(recipe, folder)
    return recipe


KINDS = ["merged", "kept-blocks", "checkpoint", "tied-head", "scoped", "mask", "changed"]


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    """A base with a distilled sibling beside it."""
    shutil.copytree(tiny_folder, tmp_path / "model")
    shutil.copytree(tiny_folder, tmp_path / "distilled")
    weights = load_file(tiny_folder / "model.safetensors")
    save_file({name: weight * 0.5 for name, weight in weights.items()}, tmp_path / "distilled" / "model.safetensors")
    write_sums(tmp_path / "distilled")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_makes_a_round_trip(base: Path, tmp_path: Path, kind: str) -> None:
    recipe = make(kind, base, tmp_path / "recipe")
    assert read_recipe(tmp_path / "recipe") == recipe
    dense = load_file(base / "model.safetensors")
    weights = load(base, tmp_path / "recipe", CPU).model.state_dict()
    assert any(name not in weights or not torch.equal(weights[name], tensor) for name, tensor in dense.items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_refuses_another_base(
    base: Path, tmp_path: Path, kind: str, corrupt: Callable[[Path], None]
) -> None:
    make(kind, base, tmp_path / "recipe")
    load(base, tmp_path / "recipe", CPU)
    changed = base.parent / "distilled" if kind == "checkpoint" else base
    corrupt(changed / "model.safetensors")
    with pytest.raises(UserError, match="damaged, does not match SHA256SUMS"):
        load(base, tmp_path / "recipe", CPU)
    write_sums(changed)  # so it is another model, and whole
    with pytest.raises(UserError, match="the recipe is for base"):
        load(base, tmp_path / "recipe", CPU)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["permutations.safetensors", "recipe-2.json", "model.safetensors"])
def test_two_recipes_in_one_folder(base: Path, tmp_path: Path, kind: str, other: str) -> None:
    make(kind, base, tmp_path / "recipe")
    if kind == "merged" and other == "permutations.safetensors":
        return  # its own
    (tmp_path / "recipe" / other).write_bytes(b"x")
    with pytest.raises(UserError, match=f"recipe: holds {other} beside a recipe of kind .*one folder holds one recipe"):
        read_recipe(tmp_path / "recipe")


def test_tied_head_zeroes_the_embedding_and_the_head_with_it(base: Path, tmp_path: Path) -> None:
    make("tied-head", base, tmp_path / "recipe")
    loaded = load(base, tmp_path / "recipe", CPU, keep_masks=True)
    dense = load_file(base / "model.safetensors")
    name = Checkpoint(base).structure.embedding
    bound = dense[name].abs().flatten().kthvalue(500).values
    expected = torch.where(dense[name].abs() <= bound, 0, dense[name])
    assert torch.equal(loaded.model.get_input_embeddings().weight, expected)
    assert torch.equal(loaded.model.get_output_embeddings().weight, expected)
    assert list(loaded.masks) == [name]
    for other, tensor in dense.items():
        assert other == name or torch.equal(loaded.model.state_dict()[other], tensor)


def test_a_head_of_its_own_is_not_tied(tmp_path: Path) -> None:
    TINY["llama"](tie_word_embeddings=False).save_pretrained(tmp_path)
    write_sums(tmp_path)
    assert not Checkpoint(tmp_path).structure.tied


@pytest.mark.parametrize("family", list(TINY))
def test_a_config_that_says_nothing_of_the_head_is_read_as_transformers_reads_it(
    tiny_folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folders[family], base)
    config = json.loads((base / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    (base / "config.json").write_text(json.dumps(config))
    assert AutoConfig.from_pretrained(base).tie_word_embeddings == (family == "gpt2")
    if family == "gpt2":
        assert weights_in("tied-head", Checkpoint(base)) == ["transformer.wte.weight"]
    else:
        assert not Checkpoint(base).structure.tied
