"""Every architecture as a tiny random model, against its config, plain transformers and naive references."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import BLOCKS, CONFIGS, PRUNABLE, WITH_EXPERTS, operations, tiny
from conftest import CPU, TINY_PARAMS, document_rows, magnitude_recipe, prose
from naive_pruning import InputsOf, naive_sparsegpt, naive_wanda, tokens_kept
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.pytorch_utils import Conv1D

from stages.lib.evaluation.summarization import summarize
from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.blockwise import BlockInputs, through_blocks
from stages.lib.inference.final_states import OriginalStates, new_final_states
from stages.lib.inference.flops import flops_per_token
from stages.lib.inference.likelihood import losses_within, predictions, scored_tokens
from stages.lib.inference.loading import Loaded, check_causal, load_original, ready
from stages.lib.plumbing.params import Summarize
from stages.lib.pruning.calibrated import calibrated_masks
from stages.lib.pruning.curvature import curvatures
from stages.lib.pruning.gradual import prune_over_all
from stages.lib.pruning.methods import method_named
from stages.lib.recipes.choosing import shared_by_matrices, spread
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.recipe import apply, materialize, write_recipe
from stages.lib.recipes.scoped_mask import ScopedMask
from stages.lib.reporting.exporting import export
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.module_tree import structure_of

TEXT = torch.arange(1, 81)[None] * 7 % 320
NOT_MERGED = {**dict.fromkeys(WITH_EXPERTS, "has experts"), "mamba": "has no feed-forward of a known shape"}

Folder = tuple[str, Path]


@pytest.fixture(scope="module", params=list(CONFIGS))
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A model folder as transformers writes it."""
    path = tmp_path_factory.mktemp(request.param)
    tiny(request.param).save_pretrained(path)
    tokenizer.save_pretrained(path)
    write_sums(path)
    return path


@pytest.fixture(scope="module")
def plain(folder: Path) -> PreTrainedModel:
    """The model as plain transformers loads it, its experts one by one."""
    model = AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()
    assert isinstance(model, PreTrainedModel)
    return model


@pytest.fixture
def loaded(folder: Path) -> Loaded:
    return load_original(Checkpoint(folder), CPU)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TEXT, use_cache=False).logits
    return found


def test_the_names_are_those_in_the_checkpoint(folder: Path, loaded: Loaded) -> None:
    checkpoint = Checkpoint(folder)
    shapes = {name: checkpoint.shape(name) for name in checkpoint.names}
    assert shapes == dict(checkpoint.structure.tensors)
    assert {name: tuple(weight.shape) for name, weight in loaded.weights.items()} == shapes
    assert checkpoint.structure.depth == BLOCKS


def test_the_prunable_weights_are_those_of_the_config(folder: Path) -> None:
    structure = Checkpoint(folder).structure
    by_block = [sum(matrix.size for matrix in matrices) for matrices in structure.matrices]
    assert by_block == [PRUNABLE[structure.model_type]] * BLOCKS
    assert set(structure.prunable) | set(structure.left_out) == set(structure.tensors)
    assert not set(structure.prunable) & set(structure.left_out)
    assert structure.embedding in structure.left_out
    routers = {name for name, reason in structure.left_out.items() if reason == "router"}
    assert len([name for name in routers if name.endswith("weight")]) == BLOCKS * (structure.model_type in WITH_EXPERTS)


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_exactly_k_are_pruned(folder: Path, tmp_path: Path, share: float) -> None:
    checkpoint = Checkpoint(folder)
    prunable = BLOCKS * PRUNABLE[checkpoint.structure.model_type]
    k = round(share * prunable)
    write_recipe(magnitude_recipe(folder, k), tmp_path)
    made = materialize(checkpoint, tmp_path)
    assert sum(int(mask.sum()) for mask in made.masks.values()) == k
    for method, scope in (("magnitude", "row"), ("random", "layer")):
        recipe = ScopedMask.of(checkpoint, method, scope, spread(k, [1] * BLOCKS).tolist(), 0)
        masks = dict(recipe.masks(checkpoint, tmp_path))
        assert sum(int(mask.sum()) for mask in masks.values()) == k
        for matrices in checkpoint.structure.matrices:
            for matrix in matrices:  # each expert's matrix is one of its own
                counts = matrix.by_output(masks[matrix.name]).sum(axis=(1, 2))
                assert np.abs(counts - share * matrix.sizes[0]).max() <= 2


def test_likelihoods_are_those_of_the_models_own_logits(plain: PreTrainedModel, loaded: Loaded) -> None:
    (found,) = losses_within(loaded, [TEXT[0].numpy()], [1], 1)
    expected = functional.cross_entropy(logits(plain)[0, :-1], TEXT[0, 1:], reduction="none")
    np.testing.assert_allclose(found, expected.double().numpy(), atol=1e-5, rtol=0)


def test_the_distance_is_that_of_the_models_own_logits(
    folder: Path, plain: PreTrainedModel, loaded: Loaded, tmp_path: Path
) -> None:
    """Of a model with other weights; the original's head makes logits without its body."""
    tokens = TEXT[0].numpy()
    (scored,) = scored_tokens(loaded, [tokens], [1], 1)
    with new_final_states(tmp_path / "states") as keep:
        keep(0, scored.states, scored.tokens)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.mul_(0.8)
    (changed,) = scored_tokens(loaded, [tokens], [1], 1)
    found = predictions(loaded, changed, OriginalStates(tmp_path / "states", Checkpoint(folder), CPU))
    before, after = (logits(model)[0, :-1].double().log_softmax(-1) for model in (plain, loaded.model))
    expected = functional.kl_div(after, before, log_target=True, reduction="none").sum(-1)
    np.testing.assert_allclose(found["kl"], expected.numpy(), atol=1e-5, rtol=1e-5)


def test_the_operations_are_those_of_the_config(folder: Path, loaded: Loaded) -> None:
    assert flops_per_token(loaded, 100) == operations(loaded.structure.model_type, 100)


def test_a_pass_block_by_block_is_a_pass(loaded: Loaded) -> None:
    last: list[torch.Tensor] = []
    for run in through_blocks(loaded, [TEXT]):
        last = run()
    inputs = BlockInputs(loaded)
    seen: list[torch.Tensor] = []
    hook = loaded.blocks[-1].register_forward_hook(
        lambda block, given, output: seen.append(output[0] if isinstance(output, tuple | list) else output)
    )
    with torch.no_grad():
        with inputs.recorded():
            whole = loaded.body(input_ids=TEXT, use_cache=False).last_hidden_state
        with inputs.resumed(2):
            half = loaded.body(input_ids=TEXT, use_cache=False).last_hidden_state
    hook.remove()
    assert torch.equal(last[0], seen[0])
    assert torch.equal(half, whole)


def single_matrices(model: PreTrainedModel, name: str) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The matrices in a tensor of the checkpoint, each as (outputs, inputs), and the tensor that multiplies inputs."""
    if expert := re.fullmatch(r"(.*)\.(?:mlp|block_sparse_moe)\.experts\.([0-9]+)\.(\w+)\.weight", name):
        experts = model.get_submodule(f"{expert[1]}.mlp.experts")
        if expert[3] in ("down_proj", "w2"):
            matrix = experts.get_parameter("down_proj")[int(expert[2])]
            yield matrix, matrix
        else:
            both = experts.get_parameter("gate_up_proj")[int(expert[2])]
            gate, up = both.split(len(both) // 2)
            yield gate if expert[3] in ("gate_proj", "w1") else up, both
    elif model.get_parameter(name).ndim == 3:
        yield from ((matrix.T, matrix) for matrix in model.get_parameter(name))
    else:
        matrix = model.get_parameter(name)
        transposed = isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)
        yield matrix.T if transposed else matrix, matrix


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
@torch.no_grad()
def test_calibrated_methods_are_the_naive_references(folder: Path, loaded: Loaded, method: str) -> None:
    """In the first block and in the last, which attend differently in some models, and read what the first has left."""
    reference = AutoModelForCausalLM.from_pretrained(folder, experts_implementation="eager").eval()
    texts = list(torch.arange(1, 481).mul(7).remainder(320).view(4, 1, 120))  # of all experts
    prunable = PRUNABLE[loaded.structure.model_type]
    block_counts = [prunable // 3, 0, 0, prunable // 2]
    on_text = method_named(method).on_text
    assert on_text is not None
    scope = {"wanda": "row", "sparsegpt": "layer"}[method]
    found = dict(
        calibrated_masks(loaded, texts, shared_by_matrices(block_counts, loaded.structure.matrices), on_text, scope)
    )
    assert list(found) == loaded.structure.prunable
    for block in (0, BLOCKS - 1):
        matrices = [
            (tensor, number, matrix, multiplied)
            for tensor in loaded.structure.matrices[block]
            for number, (matrix, multiplied) in enumerate(single_matrices(reference, tensor.name))
        ]
        inputs = InputsOf({f"{tensor.name} {number}": multiplied for tensor, number, _, multiplied in matrices})
        with inputs:
            for text in texts:
                reference(text, use_cache=False)
        counts, exact = spread(block_counts[block], [matrix.numel() for _, _, matrix, _ in matrices]).tolist(), 0
        for (tensor, number, matrix, _), count in zip(matrices, counts, strict=True):
            weight, read = matrix.double().numpy(), inputs.of(f"{tensor.name} {number}")
            if method == "wanda":
                rows, columns = weight.shape
                mask, after = naive_wanda(weight, read, spread(count, [columns] * rows).tolist())
            else:
                mask, after = naive_sparsegpt(weight, read, [count])
            chosen = tensor.by_output(found[tensor.name])[number]
            ours = tensor.by_output(loaded.weights[tensor.name])[number]
            assert chosen.sum() == mask.sum()
            # In float32 and float64, two weights next to the cut may come in another order, and all else follows.
            assert np.count_nonzero(chosen != mask) <= 2, tensor.name
            if np.array_equal(chosen, mask):
                exact += 1
                np.testing.assert_allclose(ours.numpy(), after, atol=2e-3, rtol=0, err_msg=tensor.name)
            matrix.copy_(ours)  # so that the last block reads the same
        assert exact > 0.9 * len(matrices)


def test_kfac_is_the_naive_reference(folder: Path, loaded: Loaded) -> None:
    """Over all matrices, by plain autograd: fused ones too, and those whose outputs are clipped in place."""
    kfac = method_named("kfac").on_gradients
    assert kfac is not None
    texts = [TEXT, TEXT[:, :30]]
    if loaded.structure.model_type in WITH_EXPERTS:
        with pytest.raises(
            UserError, match=r"^the gradients of \S*experts\S* cannot be gathered; set prune\.method to m"
        ):
            prune_over_all(loaded, texts, kfac, 100, 1)
        return
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    names = loaded.structure.prunable
    with tokens_kept(reference, names) as (inputs, zeros):
        for text in texts:
            predicted = reference(text, use_cache=False).logits[0, :-1].float()
            functional.cross_entropy(predicted, text[0, 1:], reduction="sum").backward()
    found = curvatures(loaded, texts, kfac.statistic)
    scores = {}
    for tensor in loaded.structure.all_matrices:
        ((matrix, _),) = single_matrices(reference, tensor.name)
        read = torch.cat(inputs[tensor.name]).double().square().sum(0)
        gradients = torch.cat([zero.grad.flatten(end_dim=-2) for zero in zeros[tensor.name]]).double().square().sum(0)
        ours = found[tensor.name]
        for sums, expected in ((ours.inputs, read), (ours.gradients, gradients)):
            torch.testing.assert_close(sums, expected, rtol=1e-3, atol=1e-5 * float(expected.max()), msg=tensor.name)
        scores[tensor.name] = matrix.detach().double().square() * torch.outer(gradients, read)
    k = BLOCKS * PRUNABLE[loaded.structure.model_type] // 3
    order = torch.cat([score.flatten() for score in scores.values()]).sort().values
    masks = prune_over_all(loaded, texts, kfac, k, 1)
    assert list(masks) == names
    assert sum(int(mask.sum()) for mask in masks.values()) == k
    for tensor in loaded.structure.all_matrices:
        mask = torch.from_numpy(tensor.by_output(masks[tensor.name])[0].copy())
        assert (scores[tensor.name][mask] <= order[k] * 1.01).all(), tensor.name
        assert (scores[tensor.name][~mask] >= order[k] * 0.99).all(), tensor.name


@torch.no_grad()
def test_experts_without_tokens_are_pruned_by_magnitude(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny("olmoe")
    for block in range(BLOCKS):
        router = model.get_parameter(f"model.layers.{block}.mlp.gate.weight")
        router[1], router[2] = 0, -router[0]  # one of its neighbours' scores is above the second expert's
    model.config.num_experts_per_tok = 1
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_sums(tmp_path)
    loaded = load_original(Checkpoint(tmp_path), CPU)
    on_text = method_named("wanda").on_text
    assert on_text is not None
    counts = shared_by_matrices([PRUNABLE["olmoe"] // 2] * BLOCKS, loaded.structure.matrices)
    dense = {name: weight.clone() for name, weight in loaded.weights.items()}
    masks = dict(calibrated_masks(loaded, [TEXT], counts, on_text, "row"))
    for name in (name for name in masks if ".experts.1." in name):
        mask, magnitudes = torch.from_numpy(masks[name]), dense[name].abs()
        assert mask.any()
        smallest_kept = magnitudes.masked_fill(mask, torch.inf).amin(dim=1)
        assert (magnitudes.masked_fill(~mask, 0).amax(dim=1) <= smallest_kept).all(), name


LISTS_BY_BLOCK = ("layer_types", "no_rope_layers", "attention_layers")


def test_kept_blocks_are_the_model_without_the_others(folder: Path, plain: PreTrainedModel) -> None:
    checkpoint = Checkpoint(folder)
    made = apply(KeptBlocks(base_sha256=checkpoint.sha256, blocks=[0, 2]), checkpoint, folder)
    kept = ready(made, CPU)
    prompt = TEXT[:, :20]
    added = kept.model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, min_new_tokens=4)
    assert added.shape == (1, 24)
    config = kept.model.config
    assert config.num_hidden_layers == 2
    lists = {key: value for key, value in plain.config.to_dict().items() if key in LISTS_BY_BLOCK}
    for key, whole in lists.items():
        assert getattr(config, key) == [whole[0], whole[2]], key
    reference = AutoModelForCausalLM.from_pretrained(folder).eval()
    blocks = reference.get_submodule(checkpoint.structure.block_list)
    parent, _, attribute = checkpoint.structure.block_list.rpartition(".")
    setattr(reference.get_submodule(parent), attribute, torch.nn.ModuleList([blocks[0], blocks[2]]))
    for key, whole in lists.items():
        setattr(reference.config, key, [whole[0], whole[2]])
    reference.config.num_hidden_layers = 2
    torch.testing.assert_close(logits(kept.model), logits(reference), rtol=0, atol=1e-5)


def test_an_export_loads_in_plain_transformers_with_its_zeros(folder: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint(folder)
    k = BLOCKS * PRUNABLE[checkpoint.structure.model_type] // 2
    recipe, out = tmp_path / "recipe", tmp_path / "out"
    recipe.mkdir()
    out.mkdir()
    write_recipe(magnitude_recipe(folder, k), recipe)
    export(folder, recipe, out)
    exported = AutoModelForCausalLM.from_pretrained(out).eval()
    assert sum(int((weight == 0).sum()) for weight in exported.parameters()) >= k
    pruned = ready(materialize(checkpoint, recipe), CPU, keep_masks=True)
    for tensor in (tensor for of_block in pruned.structure.matrices for tensor in of_block):
        masks = tensor.by_output(pruned.masks[tensor.name])
        for (matrix, _), mask in zip(single_matrices(exported, tensor.name), masks, strict=True):
            assert not matrix[mask].any(), tensor.name
    assert torch.equal(logits(exported), logits(pruned.model))


def permuted(folder: Path, only_first: bool) -> PreTrainedModel:
    """The model with the neurons of each block in another order, in all their tensors or in the first one only."""
    checkpoint, generator = Checkpoint(folder), torch.Generator().manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for feed_forward in checkpoint.structure.feed_forwards:
        order = torch.randperm(feed_forward.neurons, generator=generator)
        for tensor in feed_forward.tensors[: 1 if only_first else None]:
            if tensor.axis is not None:
                weight = model.get_parameter(tensor.name).detach()
                parts = [part.index_select(tensor.axis, order) for part in weight.chunk(tensor.parts, tensor.axis)]
                weight.copy_(torch.cat(parts, tensor.axis))
    assert isinstance(model, PreTrainedModel)
    return model


def test_neurons_may_be_permuted_before_they_are_merged(folder: Path, plain: PreTrainedModel) -> None:
    structure = Checkpoint(folder).structure
    if reason := NOT_MERGED.get(structure.model_type):
        assert structure.unmerged.endswith(reason)
        assert not structure.feed_forwards
        return
    assert not structure.unmerged
    inner = {tensor.name: tensor for tensor in structure.feed_forwards[0].tensors}
    assert all(name in structure.prunable or name.endswith("bias") for name in inner)
    torch.testing.assert_close(logits(permuted(folder, False)), logits(plain), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(permuted(folder, True)), logits(plain), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("model_type", "changes", "says"),
    [
        ("bert", {}, "bert is an encoder, which reads text in both directions"),
        ("roberta", {}, "roberta is an encoder"),
        ("t5", {}, "t5 has an encoder and a decoder"),
        ("bart", {"is_encoder_decoder": True}, "bart has an encoder and a decoder"),
        ("vit", {}, "vit is not a causal language model of transformers"),
        ("roformer", {}, "roformer is an encoder"),
        ("big_bird", {}, "big_bird is an encoder"),
        ("xlm", {}, "xlm is an encoder"),
        ("hrm_text", {}, "its 128 blocks are not one list of modules (hrm_text)"),
        ("jetmoe", {}, "many of its weights, such as experts, are in an unknown layout (jetmoe), which"),
        ("gemma3", {}, "gemma3 is more than a language model; give the model of its text part"),
        (
            "llama",
            {"hidden_size": 30, "num_attention_heads": 4},
            "config.json does not describe a valid model (llama: ",
        ),
        ("llama", {"num_attention_heads": 0}, "config.json does not describe a valid"),
        ("llama", {"num_hidden_layers": 0}, "its blocks hold no linear layers (llama), which is not supported"),
        ("no-such-type", {}, "model_type 'no-such-type' is not one that transformers "),
    ],
)
def test_other_models_are_refused_in_one_line(model_type: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        structure_of({"model_type": model_type, **changes}, "mine")
    assert says in str(error.value)
    assert str(error.value).startswith("mine: ")
    assert "\n" not in str(error.value)


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path) -> Loaded:
    """A model, saved and loaded."""
    model.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    write_sums(path)
    return load_original(Checkpoint(path), CPU)


def made(model_type: str, **config: Any) -> PreTrainedModel:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    assert isinstance(model, PreTrainedModel)
    return model


def test_a_model_that_reads_ahead_is_one_line(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """CPM-Ant does, and nothing in its modules says so."""
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "dim_head": 8, "dim_ff": 64, "num_hidden_layers": 2}
    loaded = saved(made("cpmant", vocab_size=320, **sizes), tokenizer, tmp_path)
    with pytest.raises(UserError, match="cpmant reads text in both directions; a decoder such as GPT-2"):
        check_causal(loaded)


def test_tiny_decoders_do_not_read_ahead(loaded: Loaded) -> None:
    check_causal(loaded)


def test_summaries_do_not_depend_on_the_batch_if_pads_are_read(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """RWKV reads the pads before a shorter prompt as text."""
    model = made("rwkv", vocab_size=320, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)
    loaded = saved(model, tokenizer, tmp_path)
    documents = document_rows([prose(30, 1), prose(5, 2), prose(12, 3)])
    settings = {**TINY_PARAMS["summarize"], "max_new_tokens": 6}
    together, apart = (summarize(loaded, documents, Summarize(**{**settings, "batch_size": size})) for size in (3, 1))
    assert together == apart


def test_losses_do_not_depend_on_the_batch_if_positions_depend_on_the_length(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Phi-3's long contexts have other positions, and a short sequence beside a long one would get them."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    config = {**CONFIGS["phi3"], "original_max_position_embeddings": 32, "rope_parameters": factors}
    loaded = saved(made("phi3", **config), tokenizer, tmp_path)
    sequences = [TEXT[0, :60].numpy(), TEXT[0, 20:40].numpy()]
    together, apart = (losses_within(loaded, sequences, [1, 1], size) for size in (2, 1))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_config_with_an_infinite_number(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """transformers writes it as an object, since JSON has none."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 4, "head_dim": 16, "n_groups": 1, "state_size": 8}
    loaded = saved(made("mamba2", vocab_size=320, **sizes), tokenizer, tmp_path)
    assert "__float__" in (tmp_path / "config.json").read_text()
    assert loaded.model.config.time_step_limit[1] == float("inf")
    assert loaded.structure.kinds.keys() == {"mixer.in_proj", "mixer.out_proj"}
