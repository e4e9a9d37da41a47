"""Merged feed-forwards: what permuting, averaging and matching must leave as it is, and what they make."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, DEPTH_KEY, TINY, load, prose
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.loading import Loaded
from stages.lib.recipes.merged import merge
from stages.lib.recipes.recipe import write_recipe
from stages.lib.shrinking.matching import match, pre_activations, standardize
from stages.lib.shrinking.merging import Merger
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.module_tree import structure_of as read_structure
from stages.lib.weights.structure import Structure

DEPTH = 5
TEXT = [prose(200, seed) for seed in range(3)]
NEURONS = {"llama": 64, "gpt2": 128}


@pytest.fixture(params=["llama", "llama-biased", "gpt2"])
def deep_folder(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny model of five blocks, so that groups come out uneven."""
    name = request.param.split("-")[0]
    changes = {DEPTH_KEY[name]: DEPTH} | ({"mlp_bias": True} if "biased" in request.param else {})
    model = TINY[name](**changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1 and not parameter.any():
                parameter.normal_()  # biases that are zero would prove nothing
    folder = tmp_path / "deep"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return folder


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "recipe"
    folder.mkdir()
    return folder


def structure_of(folder: Path) -> Structure:
    return Checkpoint(folder).structure


def tensors_of(block: int, structure: Structure) -> dict[str, int | None]:
    return {tensor.name: tensor.axis for tensor in structure.feed_forwards[block].tensors}


def shuffle(weights: dict[str, torch.Tensor], structure: Structure, block: int, order: np.ndarray) -> None:
    """Put a block's neurons in another order."""
    for name, axis in tensors_of(block, structure).items():
        if axis is not None:
            weights[name] = weights[name].index_select(axis, torch.from_numpy(order)).contiguous()


def windows(loaded: Loaded, documents: list[str], tokens: int) -> list[torch.Tensor]:
    return calibration_windows(loaded, documents, tokens, "compare.calibration_tokens")


def gather(folder: Path, original: Path, tokens: int = 400) -> tuple[Loaded, Merger]:
    loaded = load(folder, original, CPU)
    return loaded, Merger(loaded, windows(loaded, TEXT, tokens))


def test_permuting_alone_leaves_the_outputs_as_they_are(deep_folder: Path) -> None:
    structure = structure_of(deep_folder)
    model = AutoModelForCausalLM.from_pretrained(deep_folder)
    ids = torch.arange(60)[None]
    before = model(ids).logits
    weights = dict(model.state_dict())
    generator = np.random.default_rng(0)
    for block in range(DEPTH):
        shuffle(weights, structure, block, generator.permutation(NEURONS[structure.model_type]))
    changed = sum(not torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert changed >= 2 * DEPTH
    model.load_state_dict(weights)
    torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-5)


def test_identical_blocks_with_shuffled_neurons_are_merged_back_exactly(
    deep_folder: Path, tmp_path: Path, original: Path
) -> None:
    """Every block's feed-forward is the first one's, shuffled, and reads the same: merging must undo it."""
    structure = structure_of(deep_folder)
    weights = load_file(deep_folder / "model.safetensors")
    first = [weights[name] for name in tensors_of(0, structure)]
    generator = np.random.default_rng(1)
    neurons = NEURONS[structure.model_type]
    orders = [np.arange(neurons), *(generator.permutation(neurons) for _ in range(DEPTH - 1))]
    activations = [generator.standard_normal((neurons, 300)).astype(np.float32) for _ in range(2)]
    shuffled = []
    for block, order in enumerate(orders):
        for name, tensor in zip(tensors_of(block, structure), first, strict=True):
            weights[name] = tensor.clone()
        shuffle(weights, structure, block, order)
        shuffled.append([kind[order].copy() for kind in activations])
    for kinds in shuffled:
        for kind in kinds:
            standardize(kind)
    permutations = {block: match(shuffled[0], shuffled[block]) for block in range(1, DEPTH)}
    for block, permutation in permutations.items():
        np.testing.assert_array_equal(orders[block][permutation], np.arange(neurons))
    merge(weights, structure, DEPTH, False, permutations)
    for block in range(DEPTH):
        for name, tensor in zip(tensors_of(block, structure), first, strict=True):
            assert torch.equal(weights[name], tensor), name


def test_one_block_a_group_is_the_identity(deep_folder: Path, recipe: Path, original: Path) -> None:
    loaded, merger = gather(deep_folder, original)
    write_recipe(merger.merge(1, False, recipe), recipe)
    merged = load(deep_folder, recipe, CPU)
    for (name, parameter), (_, expected) in zip(
        merged.model.named_parameters(), loaded.model.named_parameters(), strict=True
    ):
        assert torch.equal(parameter, expected), name


def naive_correlations(first: list[np.ndarray], other: list[np.ndarray]) -> np.ndarray:
    neurons = len(first[0])
    return sum(np.corrcoef(a, b)[:neurons, neurons:] for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("anchor_only", [False, True])
def test_merged_model_is_the_average_by_its_definition(
    deep_folder: Path, recipe: Path, original: Path, anchor_only: bool
) -> None:
    """Written apart: numpy's corrcoef, scipy's assignment on it, and a mean over explicitly indexed tensors."""
    from scipy.optimize import linear_sum_assignment

    structure, dense = structure_of(deep_folder), load_file(deep_folder / "model.safetensors")
    loaded, merger = gather(deep_folder, original)
    write_recipe(merger.merge(2, anchor_only, recipe), recipe)
    weights = dict(load(deep_folder, recipe, CPU).model.named_parameters(remove_duplicate=False))
    activations = pre_activations(loaded, windows(loaded, TEXT, 400))
    expected = dict(dense)
    for first, other in ((0, 1), (2, 3)):  # the fifth block is alone
        _, order = linear_sum_assignment(-naive_correlations(activations[first], activations[other]))
        pairs = zip(tensors_of(first, structure).items(), tensors_of(other, structure), strict=True)
        for (name, axis), mine in pairs:
            theirs = dense[mine].numpy()
            aligned = theirs if axis is None else np.take(theirs, order, axis=axis)
            average = torch.from_numpy(((dense[name].numpy().astype(float) + aligned) / 2).astype(np.float32))
            expected[name] = average
            if not anchor_only:
                expected[mine] = average
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name


def test_activations_are_what_the_layers_give(deep_folder: Path, original: Path) -> None:
    structure, loaded = structure_of(deep_folder), load(deep_folder, original, CPU)
    found = pre_activations(loaded, windows(loaded, TEXT, 100))
    ids = loaded.tokenizer(TEXT[0])["input_ids"][:100]
    seen: dict[str, torch.Tensor] = {}
    for name, _ in itertools.chain.from_iterable(each.pre_activations for each in structure.feed_forwards):
        loaded.model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output[0]})
        )
    with torch.no_grad():
        loaded.model(torch.tensor([ids]))
    for block, kinds in enumerate(found):
        for kind, (name, _) in zip(kinds, structure.feed_forwards[block].pre_activations, strict=True):
            expected = seen[name].numpy().T
            np.testing.assert_allclose(kind, expected, rtol=1e-4, atol=1e-5)


def test_activations_of_a_long_text_come_in_windows(deep_folder: Path, original: Path) -> None:
    """The model takes 128 tokens: 300 come in three windows, each seen without the one before."""
    loaded = load(deep_folder, original, CPU)
    long = pre_activations(loaded, windows(loaded, TEXT, 300))[0]
    ids = [token for text in TEXT for token in loaded.tokenizer(text + "\n\n")["input_ids"]][128:256]
    text = loaded.tokenizer.decode(ids)
    assert loaded.tokenizer(text)["input_ids"] == ids
    second = pre_activations(loaded, windows(loaded, [text], 128))[0]
    for whole, part in zip(long, second, strict=True):
        np.testing.assert_allclose(whole[:, 128:256], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_matching_maximizes_the_sum_of_correlations(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, other = ([generator.standard_normal((6, 30)).astype(np.float32) for _ in range(2)] for _ in range(2))
    correlations = naive_correlations(first, other)
    best = max(itertools.permutations(range(6)), key=lambda order: sum(correlations[range(6), order]))
    for kind in [*first, *other]:
        standardize(kind)
    assert tuple(match(first, other)) == best


def test_a_neuron_that_never_changes_is_matched_to_what_is_left() -> None:
    generator = np.random.default_rng(0)
    first = generator.standard_normal((4, 50)).astype(np.float32)
    first[2] = 7.0
    other = first[[3, 2, 1, 0]].copy()
    for kind in (first, other):
        standardize(kind)
    assert np.isfinite(first).all()
    assert list(match([first], [other])) == [3, 2, 1, 0]


def break_permutation(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.numpy import load_file as load_arrays
    from safetensors.numpy import save_file as save_arrays

    permutations = load_arrays(path)
    change(permutations)
    save_arrays(permutations, path)


def swap(permutations: dict[str, Any]) -> None:
    permutations["1"][[0, 1]] = permutations["1"][[1, 0]]


def repeat(permutations: dict[str, Any]) -> None:
    permutations["1"][0] = permutations["1"][1]


def shorten(permutations: dict[str, Any]) -> None:
    permutations["1"] = np.arange(3, dtype=np.uint16)


def lose(permutations: dict[str, Any]) -> None:
    del permutations["1"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (swap, "the average is not the recipe's"),
        (repeat, "the average is not the recipe's"),
        (shorten, "damaged"),
        (lose, "the average is not the recipe's"),
    ],
)
def test_other_permutations_are_refused(
    deep_folder: Path, recipe: Path, original: Path, change: Callable[[dict[str, Any]], None], says: str
) -> None:
    write_recipe(gather(deep_folder, original)[1].merge(2, False, recipe), recipe)
    load(deep_folder, recipe, CPU)
    break_permutation(recipe / "permutations.safetensors", change)
    with pytest.raises(UserError, match=says):
        load(deep_folder, recipe, CPU)


def test_damaged_permutations_are_refused(deep_folder: Path, recipe: Path, original: Path) -> None:
    write_recipe(gather(deep_folder, original)[1].merge(2, False, recipe), recipe)
    path = recipe / "permutations.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        load(deep_folder, recipe, CPU)
    path.unlink()
    with pytest.raises(UserError, match=r"lacks permutations\.safetensors"):
        load(deep_folder, recipe, CPU)


def test_each_pair_of_blocks_is_matched_once(deep_folder: Path, tmp_path: Path, original: Path) -> None:
    _, merger = gather(deep_folder, original)
    for n in (2, 3, 4, 5):
        (tmp_path / str(n)).mkdir()
        merger.merge(n, False, tmp_path / str(n))
    apart = {(0, 1), (0, 2), (0, 3), (0, 4), (2, 3), (3, 4)}
    assert set(merger._matched) == apart


def test_bfloat16_averages_are_rounded_once(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = tmp_path / "half"
    TINY["llama"]().to(torch.bfloat16).save_pretrained(folder)
    write_sums(folder)
    weights, structure = load_file(folder / "model.safetensors"), structure_of(folder)
    name, other = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    expected = ((weights[name].double() + weights[other].double()) / 2).to(torch.bfloat16)
    merge(weights, structure, 2, False, {1: np.arange(64, dtype=np.uint16)})
    assert weights[name].dtype == torch.bfloat16
    assert torch.equal(weights[name], expected)
    save_file({key: value.clone() for key, value in weights.items()}, tmp_path / "again.safetensors")


def test_too_little_calibration_text(deep_folder: Path, original: Path) -> None:
    with pytest.raises(UserError, match=r"the calibration text has \d+ tokens, compare.calibration_tokens is 100000"):
        gather(deep_folder, original, 100_000)


def test_neurons_that_pass_a_norm_are_not_merged(tmp_path: Path) -> None:
    """BitNet normalizes between its layers, with one weight per neuron that no permutation may leave behind."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    structure = read_structure({"model_type": "bitnet", **sizes}, tmp_path)
    assert structure.unmerged == "model.layers.0 has no feed-forward of a known shape"
    assert structure.feed_forwards == ()


def test_the_recipe_names_what_it_does(deep_folder: Path, tmp_path: Path, original: Path) -> None:
    write_recipe(gather(deep_folder, original)[1].merge(3, True, tmp_path), tmp_path)
    content = json.loads((tmp_path / "recipe.json").read_text())
    assert (content["kind"], content["n"], content["anchor_only"]) == ("merged", 3, True)


def test_activations_that_are_not_finite_are_one_line(deep_folder: Path, original: Path) -> None:
    loaded = load(deep_folder, original, CPU)
    block = loaded.structure.module(2)
    with torch.no_grad():
        loaded.weights[loaded.structure.matrices[1][-1].name][0, 0] = torch.inf
    with pytest.raises(UserError, match=rf"the pre-activations of {block} are not finite in float32"):
        Merger(loaded, windows(loaded, TEXT, 100))
