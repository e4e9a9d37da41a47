"""Recovery block by block against a loop over whole passes with hooks, and its saved states."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from architectures import CONFIGS, tiny
from conftest import CPU, TINY, keep_blocks, load, merged_by_three
from recovering import (  # noqa: F401
    DOCUMENTS,
    RunStage,
    contents,
    killed_after,
    prepare,
    pruned,
    recover_settings,
    save_without_delay,
)
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Recover
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.original import Original
from stages.lib.recipes.recipe import materialize
from stages.lib.recovery.blocks import train_blocks
from stages.lib.recovery.recover import last_blocks
from stages.lib.recovery.training import training_windows
from stages.lib.weights.checkpoint import Checkpoint

settings = partial(recover_settings, objective="blocks", learning_rate=1e9)  # which blocks does not read


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A base of four blocks."""
    folder = tmp_path_factory.mktemp("deep")
    TINY["llama"](num_hidden_layers=4).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return folder


def given_by(loaded: Loaded, number: int, window: torch.Tensor) -> torch.Tensor:
    """What a block gives in a pass of the whole model. Shape: (tokens, hidden)."""
    seen: list[torch.Tensor] = []

    def see(block: Any, inputs: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple | list) else output)

    with loaded.blocks[number].register_forward_hook(see):
        loaded.model(window[None])
    return seen[0].reshape(len(window), -1)


def by_hand(
    student: Loaded,
    teacher: Loaded,
    windows: Sequence[torch.Tensor],
    chosen: Recover,
    last: Sequence[int],
    first_target: int = 1,
) -> list[float]:
    """The same training by whole passes; the mean losses."""
    losses = torch.zeros(chosen.steps, len(last), dtype=torch.float64)
    warm_up, per_step = math.ceil(chosen.steps / 10), len(windows) // chosen.steps
    taken: list[torch.Tensor] = []
    for number, target in enumerate(last):
        weights = [w for w in student.blocks[number].parameters() if not any(w is other for other in taken)]
        taken += weights
        zeros = [(weight == 0) & (weight.ndim > 1) for weight in weights]
        optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
        for step in range(chosen.steps):
            past = (step - warm_up) / max(1, chosen.steps - warm_up)
            share = (step + 1) / warm_up if step < warm_up else (1 + math.cos(math.pi * past)) / 2
            optimizer.param_groups[0]["lr"] = chosen.blocks_learning_rate * share
            optimizer.zero_grad()
            for window in windows[step * per_step : (step + 1) * per_step]:
                ours = given_by(student, number, window)
                with torch.no_grad():
                    wanted = given_by(teacher, target, window)
                terms = [
                    ((ours[token] - wanted[token]) ** 2).sum() / (wanted[token] ** 2).sum()
                    for token in range(first_target - 1, len(window) - 1)  # the last one predicts no token of it
                ]
                loss = torch.stack(terms).mean() / per_step
                loss.backward()
                losses[step, number] += loss.item()
            for weight, mask in zip(weights, zeros, strict=True):
                weight.grad[mask] = 0
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
    return losses.mean(dim=1).tolist()


def refused(*arguments: Any, **named: Any) -> None:
    raise AssertionError("no logits are needed")


def compare(
    make: Callable[[], Loaded],
    teacher: Loaded,
    last: Sequence[int],
    chosen: Recover,
    folder: Path,
    first: Sequence[int] = (),
) -> Loaded:
    """Train two copies of a model, here and by hand, and compare them; returns the first."""
    ours, theirs, before = make(), make(), make()
    for loaded in (ours, theirs, before):
        loaded.__dict__["first_tokens"] = list(first)
    windows = training_windows(ours, DOCUMENTS, chosen, 0)
    heads = [each.model.get_output_embeddings() for each in (ours, teacher)]
    with pytest.MonkeyPatch.context() as patch:
        for head in heads:
            patch.setattr(head, "forward", refused)
        log = train_blocks(ours, teacher, windows, chosen, last, folder)
    expected = by_hand(theirs, teacher, windows, chosen, last, max(1, len(first)))
    assert [row["step"] for row in log] == list(range(1, chosen.steps + 1))
    # Sums in another order: the last digits of float32, and AdamW divides small gradients by small ones.
    assert [row["loss"] for row in log] == pytest.approx(expected, rel=1e-4)
    in_blocks = {id(weight) for block in ours.blocks for weight in block.parameters()}
    for name, weight in ours.model.named_parameters():
        old = before.model.get_parameter(name)
        assert torch.equal(weight, old) != (id(weight) in in_blocks), name  # embeddings, last norm and head stay
        if not name.endswith("c_attn.bias"):  # keys' biases cancel in the softmax: their gradient is rounding
            torch.testing.assert_close(weight, theirs.model.get_parameter(name), rtol=1e-3, atol=1e-5)
        assert weight.ndim == 1 or torch.equal(weight == 0, old == 0), name
    return ours


@pytest.mark.parametrize("windows_per_step", [1, 2])
@pytest.mark.parametrize("first", [(), (5, 6, 7)])
def test_it_is_the_plain_loop(
    tiny_folder: Path,
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    windows_per_step: int,
    first: Sequence[int],
) -> None:
    monkeypatch.setattr("stages.lib.recovery.schedule.TRAINING_WINDOW", 32)
    monkeypatch.setattr("stages.lib.plumbing.params.TRAINING_WINDOW", 32)
    chosen = settings(steps=3, tokens_per_step=32 * windows_per_step)
    teacher = load(tiny_folder, original, CPU)
    compare(lambda: pruned(tiny_folder, original), teacher, [0, 1], chosen, tmp_path, first)


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_every_architecture(
    architecture: str, tmp_path: Path, original: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder, chosen = tmp_path / "base", settings(steps=1, tokens_per_step=64)
    tiny(architecture).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    ours, theirs, teacher = pruned(folder, original), pruned(folder, original), load(folder, original, CPU)
    windows, blocks = training_windows(ours, DOCUMENTS, chosen, 0), range(len(ours.blocks))
    (row,) = train_blocks(ours, teacher, windows, chosen, blocks, tmp_path / "states")
    assert [row["loss"]] == pytest.approx(by_hand(theirs, teacher, windows, chosen, blocks), rel=1e-3)
    untouched = pruned(folder, original)
    for block, before in zip(ours.blocks, untouched.blocks, strict=True):
        pairs = zip(block.parameters(), before.parameters(), strict=True)
        assert any(not torch.equal(*pair) for pair in pairs)


def test_a_block_that_is_kept_stands_for_those_after_it(deep: Path, original: Path, tmp_path: Path) -> None:
    recipe = keep_blocks(deep, [0, 1], tmp_path / "recipe")  # the second one stands for three
    last = last_blocks(KeptBlocks(base_sha256="0" * 64, blocks=[0, 1]), 2, 4)
    assert last == [0, 3]
    teacher = load(deep, original, CPU)

    def student() -> Loaded:
        loaded = load(deep, recipe, CPU)
        with torch.no_grad():  # the first one has nothing to learn otherwise, and AdamW makes steps of rounding errors
            for weight in loaded.blocks[0].parameters():
                weight.mul_(0.9)
        return loaded

    compare(student, teacher, last, settings(steps=2), tmp_path / "states")


def test_shared_weights_are_trained_with_the_first_of_their_blocks(deep: Path, original: Path, tmp_path: Path) -> None:
    recipe, teacher = merged_by_three(deep, tmp_path / "recipe"), load(deep, original, CPU)
    chosen, folder = settings(steps=2), tmp_path / "states"

    def student() -> Loaded:
        loaded = load(deep, recipe, CPU)
        with torch.no_grad():  # the last block is not merged
            for weight in loaded.blocks[3].parameters():
                weight.mul_(0.9)
        return loaded

    ours = compare(student, teacher, range(4), chosen, folder)
    up = [block.mlp.up_proj.weight for block in ours.blocks]
    assert up[0] is up[2]
    assert up[0] is not up[3]
    after_first = load_file(folder / "step-6" / "state.safetensors")
    assert torch.equal(after_first["weight model.layers.0.mlp.up_proj.weight"], up[0])


@pytest.mark.parametrize(
    ("blocks", "of", "last"), [(2, 4, [1, 3]), (3, 3, [0, 1, 2]), (6, 12, [1, 3, 5, 7, 9, 11]), (2, 3, [0, 2])]
)
def test_blocks_of_another_checkpoint_stand_for_equal_parts(blocks: int, of: int, last: list[int]) -> None:
    assert last_blocks(Original(), blocks, of) == last


def test_blocks_of_compressed_models_end_before_the_next_one_kept() -> None:
    assert last_blocks(KeptBlocks(base_sha256="0" * 64, blocks=[0, 4, 8]), 3, 12) == [3, 7, 11]


def test_models_that_cannot_be_compared(
    tiny_folders: dict[str, Path], original: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(UserError, match=r"the model has 5 blocks, the original has 4, so recover\.objective blocks"):
        last_blocks(Original(), 5, 4)
    TINY["llama"](hidden_size=16).save_pretrained(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    write_sums(tmp_path / "narrow")
    narrow, teacher = load(tmp_path / "narrow", original, CPU), load(tiny_folders["llama"], original, CPU)
    windows = training_windows(narrow, DOCUMENTS, settings(), 0)
    with pytest.raises(UserError, match=r"gives 16 features per token, the original's gives 32, .*set it to distill"):
        train_blocks(narrow, teacher, windows, settings(), [0, 1], tmp_path / "states")


def test_towards_itself_there_is_nothing_to_learn(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    model, teacher = load(tiny_folder, original, CPU), load(tiny_folder, original, CPU)
    chosen = settings(blocks_learning_rate=1e-30)  # AdamW makes whole steps of rounding errors
    log = train_blocks(model, teacher, training_windows(model, DOCUMENTS, chosen, 0), chosen, [0, 1], tmp_path)
    assert [row["loss"] for row in log] == pytest.approx([0] * 6, abs=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_learns_in_the_dtype_of_the_params(tiny_folder: Path, original: Path, tmp_path: Path, dtype: str) -> None:
    device = Device(torch.device("cpu"), getattr(torch, dtype)).for_training()
    model, teacher, seen = pruned(tiny_folder, original, device), load(tiny_folder, original, device), set()
    matrix = model.model.get_submodule(model.structure.matrices[0][0].layer)
    matrix.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    chosen = settings(steps=20)
    (window, *_) = training_windows(model, DOCUMENTS, chosen, 0)
    log = train_blocks(model, teacher, [window] * 20, chosen, [0, 1], tmp_path)
    assert seen == {getattr(torch, dtype)}
    assert {weight.dtype for weight in model.model.parameters()} == {torch.float32}
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


# Divergence.


def test_a_learning_rate_that_diverges(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    model, teacher, chosen = (
        pruned(tiny_folder, original),
        load(tiny_folder, original, CPU),
        settings(blocks_learning_rate=1e30),
    )
    windows = training_windows(model, DOCUMENTS, chosen, 0)
    with pytest.raises(
        UserError, match=r"recovery diverged \(its (loss|gradient) is not finite\); lower recover.blocks_l"
    ):
        train_blocks(model, teacher, windows, chosen, [0, 1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_original_that_overflows_does_not_blame_the_learning_rate(
    tiny_folder: Path, original: Path, tmp_path: Path
) -> None:
    model, teacher = pruned(tiny_folder, original), load(tiny_folder, original, CPU)
    windows = training_windows(model, DOCUMENTS, settings(), 0)
    for broken, line in (
        (model, "the first losses of recovery are not finite in float32; repair"),
        (teacher, "the hidden states of the original are not finite in float32; repair"),
    ):
        with torch.no_grad():
            broken.model.get_input_embeddings().weight[1:] = torch.inf
        with pytest.raises(UserError, match=line):
            train_blocks(model, teacher, windows, settings(), [0, 1], tmp_path)


# The saved states.


@pytest.mark.parametrize("kind", ["original", "merged", "kept"])
@pytest.mark.parametrize("saves", [1, 2])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    deep: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, saves: int
) -> None:
    make: dict[str, Callable[[], Path]] = {
        "original": lambda: original,
        "merged": lambda: merged_by_three(deep, tmp_path / "recipe"),
        "kept": lambda: keep_blocks(deep, [0, 1, 2], tmp_path / "recipe"),
    }
    recipe, teacher, chosen = make[kind](), load(deep, original, CPU), settings(steps=2)
    undisturbed, resumed = pruned(deep, recipe), pruned(deep, recipe)
    last = last_blocks(Original(), len(resumed.blocks), 4)
    windows = training_windows(resumed, DOCUMENTS, chosen, 0)
    log = train_blocks(undisturbed, teacher, windows, chosen, last, tmp_path / "undisturbed")

    with monkeypatch.context() as patch:
        patch.setattr("stages.lib.recovery.blocks.save_state", killed_after(saves * chosen.steps))
        with pytest.raises(UserError, match="killed"):
            train_blocks(pruned(deep, recipe), teacher, windows, chosen, last, tmp_path / "states")
    trained: list[int] = []
    monkeypatch.setattr("stages.lib.recovery.blocks.save_state", lambda *given: trained.append(len(given[-1]) // 2 - 1))
    assert train_blocks(resumed, teacher, windows, chosen, last, tmp_path / "states") == log
    assert trained == list(range(saves, len(resumed.blocks)))
    pairs = zip(resumed.model.parameters(), undisturbed.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# The stage.


@pytest.mark.parametrize("objective", ["blocks", "blocks+distill"])
def test_the_recipe_gives_back_what_was_trained(project: Path, run_stage: RunStage, objective: str) -> None:
    prepare(project, run_stage, recover__objective=objective)
    finished = run_stage("recover")
    assert finished.status == 0, finished.err
    checkpoint = Checkpoint(Path("data/model"))
    before, after = (materialize(checkpoint, Path("data") / name) for name in ("pruned", "recovered/pruned"))
    in_blocks = {name for block in before.structure.blocks for name in block}
    for name, weight in after.weights.items():
        old = before.weights[name]
        assert weight.ndim == 1 or not torch.any(weight[old == 0]), name
        assert torch.equal(weight, old) == (objective == "blocks" and name not in in_blocks), name
    losses = pd.read_csv("data/recovered/pruned/losses.csv")
    assert losses["step"].tolist() == list(range(1, 7 if objective == "blocks" else 13))
    assert losses["learning_rate"].tolist()[0] == 2e-3
    if objective == "blocks+distill":
        assert losses["learning_rate"].tolist()[6:] == pytest.approx(
            (losses["learning_rate"] / 2).tolist()[:6], rel=1e-5
        )
    assert not any(Path("data/checkpoints").iterdir())


@pytest.mark.parametrize("variant", ["merged_2", "compressed_2", "pruned-tied-head", "distilled"])
def test_the_other_models_recover_too(
    project: Path, run_stage: RunStage, tiny_folders: dict[str, Path], variant: str
) -> None:
    distilled = {"source": "local", "path": str(tiny_folders["llama"])}
    changes = {"compare__variants": [variant], "recover__objective": "blocks+distill", "distilled": distilled}
    prepare(project, run_stage, **changes)
    for stage in (("shrink",), ("recover_others", variant)):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    checkpoint = Checkpoint(Path("data/model"))
    before, after = (materialize(checkpoint, Path("data") / name / variant) for name in ("variants", "recovered"))
    assert before.weights.keys() == after.weights.keys()
    moved = sum(int(torch.count_nonzero(weight != before.weights[name])) for name, weight in after.weights.items())
    assert moved > 1000


@pytest.mark.parametrize(("module", "steps"), [("blocks", 6), ("blocks", 12), ("training", 2), ("training", 4)])
def test_both_parts_of_a_run_resume(
    project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, module: str, steps: int
) -> None:
    prepare(project, run_stage, recover__objective="blocks+distill")
    assert run_stage("recover").status == 0
    undisturbed = contents(Path("data/recovered/pruned"))

    with monkeypatch.context() as patch:
        patch.setattr(f"stages.lib.recovery.{module}.save_state", killed_after(steps))
        assert "killed" in run_stage("recover").err
    saved: list[int] = []
    for name in ("blocks", "training"):
        monkeypatch.setattr(f"stages.lib.recovery.{name}.save_state", lambda *given: saved.append(len(given[-1])))
    finished = run_stage("recover")
    assert finished.status == 0, finished.err
    assert saved == {6: [12, 2, 4, 6], 12: [2, 4, 6], 2: [4, 6], 4: [6]}[steps]
    assert contents(Path("data/recovered/pruned")) == undisturbed
