"""Recovery against a loop of its own, and what it must not do: revive a zero, lose a run, hide a divergence."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import (
    CPU,
    ROOT,
    TINY,
    changed_params,
    feed_forwards,
    load,
    merged_by_three,
    prose,
    write_jsonl,
    write_params,
)
from recovering import DOCUMENTS, RunStage, contents, killed_after, prepare, pruned, save_without_delay  # noqa: F401
from recovering import recover_settings as settings
from repository import ENVIRONMENT, Repository, ran
from ruamel.yaml import YAML
from safetensors.torch import load_file
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.device import Device, set_up
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Recover
from stages.lib.recipes.recipe import materialize
from stages.lib.recovery.schedule import learning_rates, peak_rate, windows_per_step
from stages.lib.recovery.states import CODE, SavePoints
from stages.lib.recovery.training import train, training_windows
from stages.lib.reporting.exporting import export
from stages.lib.weights.checkpoint import Checkpoint


def by_hand(student: Loaded, teacher: Loaded | None, windows: list[torch.Tensor], chosen: Recover) -> list[float]:
    """The same training as a plain loop; the losses."""
    model, losses = student.model, []  # in evaluation mode, so without dropout
    zeros = {name: (weight == 0) & (weight.ndim > 1) for name, weight in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    warm_up, per_step = math.ceil(chosen.steps / 10), windows_per_step(chosen)
    for step in range(chosen.steps):
        past = (step - warm_up) / (chosen.steps - warm_up)
        share = (step + 1) / warm_up if step < warm_up else (1 + math.cos(math.pi * past)) / 2
        optimizer.param_groups[0]["lr"] = chosen.learning_rate * share
        optimizer.zero_grad()
        total = 0.0
        for window in windows[step * per_step : (step + 1) * per_step]:
            logits = model(window[None]).logits[0, :-1]
            if teacher is None:
                loss = functional.cross_entropy(logits, window[1:])
            else:
                with torch.no_grad():
                    wanted = teacher.model(window[None]).logits[0, :-1]
                loss = kl_divergence(Categorical(logits=wanted), Categorical(logits=logits)).mean()
            (loss / per_step).backward()
            total += loss.item() / per_step
        for name, weight in model.named_parameters():
            weight.grad[zeros[name]] = 0
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(total)
    return losses


@pytest.mark.parametrize("objective", ["distill", "lm"])
@pytest.mark.parametrize("windows_per_step", [1, 2])
def test_it_is_the_plain_loop(
    tiny_folder: Path,
    original: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    windows_per_step: int,
) -> None:
    monkeypatch.setattr("stages.lib.recovery.schedule.TRAINING_WINDOW", 32)
    monkeypatch.setattr("stages.lib.plumbing.params.TRAINING_WINDOW", 32)
    chosen = settings(objective=objective, tokens_per_step=32 * windows_per_step)
    ours, theirs = pruned(tiny_folder, original), pruned(tiny_folder, original)
    teacher = load(tiny_folder, original, CPU) if objective == "distill" else None
    windows = training_windows(ours, DOCUMENTS, chosen, 0)
    assert len(windows) == 6 * windows_per_step
    assert all(len(window) == 32 for window in windows)
    log = train(ours, teacher, windows, chosen, tmp_path)
    expected = by_hand(theirs, teacher, windows, chosen)
    assert [row["step"] for row in log] == [1, 2, 3, 4, 5, 6]
    # Sums in another order: the last digits of float32, and AdamW divides small gradients by small ones.
    assert [row["loss"] for row in log] == pytest.approx(expected, rel=1e-4)
    untouched = pruned(tiny_folder, original).model
    for name, weight in ours.model.named_parameters():
        # Keys' biases cancel in the softmax: their gradient is rounding, which AdamW makes whole steps of.
        if not name.endswith("c_attn.bias"):
            torch.testing.assert_close(weight, theirs.model.get_parameter(name), rtol=1e-3, atol=1e-5)
        assert weight.ndim == 1 or torch.equal(weight == 0, untouched.get_parameter(name) == 0), name
        assert not torch.equal(weight, untouched.get_parameter(name)), name


@pytest.mark.parametrize("part", ["blocks", "norms"])
def test_a_part_is_trained_and_the_rest_stays(tiny_folder: Path, original: Path, tmp_path: Path, part: str) -> None:
    ours, untouched = pruned(tiny_folder, original), pruned(tiny_folder, original).model
    chosen = settings(weights=part)
    windows = training_windows(ours, DOCUMENTS, chosen, 0)
    train(ours, load(tiny_folder, original, CPU), windows, chosen, tmp_path)
    for name, weight in ours.model.named_parameters():
        trained = weight.ndim == 1 if part == "norms" else ours.structure.block_list in name
        assert torch.equal(weight, untouched.get_parameter(name)) != trained, name
    resumed = pruned(tiny_folder, original)
    train(resumed, None, windows, chosen, tmp_path)  # from the last state, so no step is left
    for name, weight in resumed.model.named_parameters():
        assert torch.equal(weight, ours.model.get_parameter(name)), name


def test_towards_itself_there_is_nothing_to_learn(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    model, teacher = load(tiny_folder, original, CPU), load(tiny_folder, original, CPU)
    log = train(model, teacher, training_windows(model, DOCUMENTS, settings(), 0), settings(), tmp_path)
    assert log[0]["loss"] == pytest.approx(0, abs=1e-6)  # later, AdamW has made steps of rounding errors


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11, 40])
def test_every_step_has_a_rate(steps: int) -> None:
    rates = learning_rates(steps, 1e-3)
    peak = rates.index(max(rates))
    assert len(rates) == steps
    assert min(rates) > 0
    assert max(rates) == 1e-3
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_automatic_rate(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    """By the first step's loss, which a resumed run reads from the log."""
    chosen, teacher = settings(learning_rate="auto"), load(tiny_folder, original, CPU)
    windows = training_windows(teacher, DOCUMENTS, chosen, 0)
    whole = train(pruned(tiny_folder, original), teacher, windows, chosen, tmp_path / "whole")
    peak = 4e-4 * whole[0]["loss"] ** 0.5
    assert [row["learning_rate"] for row in whole] == pytest.approx(learning_rates(chosen.steps, peak))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.lib.recovery.training.save_state", killed_after(4))
        with pytest.raises(UserError, match="killed"):
            train(pruned(tiny_folder, original), teacher, windows, chosen, tmp_path / "killed")
    assert train(pruned(tiny_folder, original), teacher, windows, chosen, tmp_path / "killed") == whole


@pytest.mark.parametrize(("loss", "peak"), [(-1e-9, 0), (0.0, 0), (1.0, 4e-4), (20.0, 4e-4)])
def test_the_automatic_rate_has_bounds(loss: float, peak: float) -> None:
    assert peak_rate("auto", loss) == peak


@pytest.mark.parametrize(
    ("parts", "seconds_per_part", "saved"),
    [
        (40, 1, []),
        (40, 5, [30]),  # 20 and 40 are within two minutes of the start and of 30
        (40, 30, [10, 20, 30, 40]),
        (7, 70, [2, 4, 6]),
        (7, 130, [2, 4, 6, 7]),
        (1, 200, [1]),
    ],
)
def test_states_are_saved_at_quarters_but_not_too_often(
    monkeypatch: pytest.MonkeyPatch, parts: int, seconds_per_part: int, saved: list[int]
) -> None:
    now = 0
    monkeypatch.setattr("stages.lib.recovery.states.SECONDS_APART", 120)
    monkeypatch.setattr("stages.lib.recovery.states.time.monotonic", lambda: now)
    points, found = SavePoints(parts), []
    for done in range(1, parts + 1):
        now += seconds_per_part
        if points.due(done):
            found.append(done)
    assert found == saved


def test_it_is_deterministic_and_learns(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    chosen, teacher = settings(steps=40), load(tiny_folder, original, CPU)
    runs = []
    for name in ("first", "second"):
        model = pruned(tiny_folder, original)
        log = train(model, teacher, training_windows(model, DOCUMENTS, chosen, 0), chosen, tmp_path / name)
        runs.append((log, [weight.clone() for weight in model.model.parameters()]))
    assert runs[0][0] == runs[1][0]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["step-30", "step-40"]  # the newest two
    assert all(torch.equal(one, other) for one, other in zip(runs[0][1], runs[1][1], strict=True))
    losses = [row["loss"] for row in runs[0][0]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


# Merged models.


def with_shared_leaves(model: torch.nn.Module, base: Path) -> dict[str, torch.Tensor]:
    """Each weight as a leaf of its own by all its names, merged ones as one leaf."""
    leaves: dict[str, torch.Tensor] = {}
    group = {name: names[0] for names in feed_forwards(base) for name in names}
    for name, weight in model.named_parameters():
        one = group.get(name, name)
        leaves[name] = leaves[one] if one in leaves else weight.detach().clone().requires_grad_()
    return leaves


def test_merged_blocks_are_trained_as_one(
    tiny_folders: dict[str, Path], original: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Against AdamW over leaves that are shared explicitly."""
    base = tmp_path / "base"
    TINY["llama"](num_hidden_layers=4).save_pretrained(base)
    tokenizer.save_pretrained(base)
    write_sums(base)
    loaded = load(base, merged_by_three(base, tmp_path / "merged"), CPU)
    (tmp_path / "out").mkdir()
    export(base, tmp_path / "merged", tmp_path / "out")
    copies = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    chosen = settings(objective="lm", steps=3)
    windows = training_windows(loaded, DOCUMENTS, chosen, 0)
    leaves = with_shared_leaves(copies, base)
    distinct = list({id(leaf): leaf for leaf in leaves.values()}.values())
    zeros = [(leaf == 0) & (leaf.ndim > 1) for leaf in distinct]
    optimizer = torch.optim.AdamW(distinct, weight_decay=0.0)
    for step, window in enumerate(windows):
        optimizer.param_groups[0]["lr"] = learning_rates(3, chosen.learning_rate)[step]
        optimizer.zero_grad()
        given = {"input_ids": window[None]}
        logits = torch.func.functional_call(copies, leaves, (), given).logits
        functional.cross_entropy(logits[0, :-1], window[1:]).backward()
        for leaf, mask in zip(distinct, zeros, strict=True):
            leaf.grad[mask] = 0
        torch.nn.utils.clip_grad_norm_(distinct, 1.0)
        optimizer.step()
    train(loaded, None, windows, chosen, tmp_path / "states")
    for name, leaf in leaves.items():
        torch.testing.assert_close(loaded.model.get_parameter(name), leaf, rtol=1e-3, atol=1e-5)


def test_a_merged_model_stays_merged(project: Path, run_stage: RunStage) -> None:
    prepare(project, run_stage, compare__variants=["merged_2"])
    for stage in (("shrink",), ("recover_others", "merged_2"), ("export", "out", "--model", "merged_2")):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    checkpoint, recipe = Checkpoint(Path("data/model")), Path("data/recovered/merged_2")
    before = materialize(checkpoint, Path("data/variants/merged_2")).weights
    after = materialize(checkpoint, recipe).weights
    stored = load_file(recipe / "changes.safetensors")
    for matrix in ("gate", "up", "down"):
        first, second = (f"model.layers.{block}.mlp.{matrix}_proj.weight" for block in (0, 1))
        assert after[first] is after[second]
        assert not torch.equal(after[first], before[first])
        assert first in stored
        assert second not in stored
    ids = torch.arange(5, 60)[None]
    exported = AutoModelForCausalLM.from_pretrained("out").eval()
    assert torch.equal(exported(ids).logits, load(Path("data/model"), recipe, CPU).model(ids).logits)


# Precision.


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_few_bits_train_as_many_weights_as_float32(
    project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """At a learning rate whose steps bfloat16 weights would not notice."""
    moved = {}

    def keep(before: Any, weights: dict[str, torch.Tensor], *others: Any) -> None:
        after = {name: weight.clone() for name, weight in weights.items()}
        dense = load_file("data/model/model.safetensors")
        changes = [(after[name].float() != weight)[weight != 0] for name, weight in dense.items() if weight.ndim > 1]
        moved[chosen] = float(torch.cat(changes).float().mean())

    prepare(project, run_stage, recover__learning_rate=2e-5, prune__sparsity=0)
    monkeypatch.setattr("stages.lib.recipes.recipe.write_changed", keep)
    for chosen in ("float32", dtype):
        changes = {"recover.steps": 6, "recover.learning_rate": 2e-5, "prune.sparsity": 0, "compute.dtype": chosen}
        write_params(project, changed_params(changes))
        finished = run_stage("recover")
        assert finished.status == 0, finished.err
    assert moved["float32"] > 0.8
    assert moved[dtype] == pytest.approx(moved["float32"], rel=0.05)


@pytest.mark.parametrize(
    ("dtype", "computed"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")]
)
def test_training_computes_in_the_dtype_of_the_params(
    tiny_folder: Path, original: Path, tmp_path: Path, dtype: str, computed: str
) -> None:
    device = Device(torch.device("cpu"), getattr(torch, dtype)).for_training()
    model, seen = load(tiny_folder, original, device), set()
    matrix = model.model.get_submodule(model.structure.matrices[0][0].layer)
    matrix.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    train(model, None, training_windows(model, DOCUMENTS, settings(), 0), settings(objective="lm"), tmp_path)
    assert seen == {getattr(torch, computed)}
    assert {weight.dtype for weight in model.model.parameters()} == {torch.float32}


# The saved states.


def test_one_process_and_one_window_whatever_devices_there_are(
    tiny_folder: Path, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step is `tokens_per_step` tokens on every machine; nothing spreads it over several devices."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    model, seen = load(tiny_folder, original, CPU), []
    model.model.register_forward_pre_hook(
        lambda module, given, named: seen.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    train(model, None, training_windows(model, DOCUMENTS, settings(), 0), settings(objective="lm"), tmp_path)
    assert seen == [(1, 32)] * (6 + 3)  # each step, and a look at the loss before each saved state


def test_a_single_step_trains(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    model, before = load(tiny_folder, original, CPU), load(tiny_folder, original, CPU)
    chosen = settings(objective="lm", steps=1)
    train(model, None, training_windows(model, DOCUMENTS, chosen, 0), chosen, tmp_path)
    changed = [not torch.equal(*pair) for pair in zip(model.model.parameters(), before.model.parameters(), strict=True)]
    assert all(changed)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_last_step_that_diverges_leaves_no_state(
    tiny_folder: Path, original: Path, tmp_path: Path, steps: int
) -> None:
    model, chosen = (
        load(tiny_folder, original, CPU.for_training()),
        settings(objective="lm", steps=steps, learning_rate=1e16),
    )
    with pytest.raises(UserError, match=r"recovery diverged \(its (loss|gradient) is not finite\); lower recover"):
        train(model, None, training_windows(model, DOCUMENTS, chosen, 0), chosen, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_overflows_before_the_first_step_does_not_blame_the_learning_rate(
    tiny_folder: Path, original: Path, tmp_path: Path
) -> None:
    model, chosen = load(tiny_folder, original, CPU.for_training()), settings(objective="lm")
    model.model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(UserError, match=r"the first gradients of recovery are not finite .*; repair the model"):
        train(model, None, training_windows(model, DOCUMENTS, chosen, 0), chosen, tmp_path)


def test_an_overflow_before_the_first_step_does_not_blame_the_learning_rate(
    tiny_folder: Path, original: Path, tmp_path: Path
) -> None:
    model = load(tiny_folder, original, CPU.for_training())
    with torch.no_grad():
        model.model.get_input_embeddings().weight[1:] = torch.inf
    windows = training_windows(model, DOCUMENTS, settings(), 0)
    with pytest.raises(UserError, match=r"the first losses of recovery are not finite .*; repair the model"):
        train(model, None, windows, settings(objective="lm"), tmp_path)


@pytest.fixture
def interrupted(project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A run that ended after four of six steps; the numbers of the steps that later runs begin with."""
    prepare(project, run_stage)
    begins: list[int] = []

    with monkeypatch.context() as patch:
        patch.setattr("stages.lib.recovery.training.save_state", killed_after(4))
        assert "killed" in run_stage("recover").err
    monkeypatch.setattr(
        "stages.lib.recovery.training.tqdm", lambda steps, **named: begins.append(steps.start) or tqdm(steps, **named)
    )
    return begins


def other_device(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = set_up

    def other(*arguments: Any) -> Device:
        return Device(torch.device("cpu", 0), resolved(*arguments).dtype)

    monkeypatch.setattr("stages.lib.inference.device.set_up", other)


def other_threads(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 99)


def other_torch(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", "9.0.0")


def other_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the library in which a module of recovery has one more line."""
    copy = project / "copy"
    shutil.copytree(ROOT / "stages", copy / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "stages/lib/recovery/training.py").open("a") as module:
        module.write("# another rule\n")
    monkeypatch.setattr("stages.lib.recovery.states.__file__", str(copy / "stages/lib/recovery/states.py"))


def other_settings(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(project, changed_params({"recover.steps": 6, "recover.learning_rate": 2e-3}))


def test_an_interrupted_run_resumes(interrupted: list[int], run_stage: RunStage) -> None:
    assert run_stage("recover").status == 0
    assert interrupted == [4]


@pytest.mark.parametrize("change", [other_device, other_threads, other_torch, other_code, other_settings])
def test_a_state_of_another_run_is_not_resumed(
    interrupted: list[int],
    project: Path,
    run_stage: RunStage,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    change(project, monkeypatch)
    finished = run_stage("recover")
    assert finished.status == 0, finished.err
    assert interrupted == [0]


def test_the_code_of_a_state_is_that_of_the_stage() -> None:
    stage = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["recover"]
    packages = [name.removeprefix("stages/lib/") for name in stage["deps"] if name.startswith("stages/lib/")]
    assert list(CODE) == packages


# The text.


def test_windows_come_from_the_text_and_again_where_it_is_short(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    text = "\n\n".join(DOCUMENTS)
    few = training_windows(loaded, DOCUMENTS[:2], settings(steps=50), 0)
    assert len(few) == 50
    distinct = {tuple(window.tolist()) for window in few}
    assert 1 < len(distinct) < 50
    assert [tuple(window.tolist()) for window in few[: len(distinct)]] != [
        tuple(window.tolist()) for window in few[len(distinct) : 2 * len(distinct)]
    ]
    for window in few:
        assert all(part.strip() in text for part in loaded.tokenizer.decode(window).split("\n\n"))
    many = training_windows(loaded, DOCUMENTS, settings(steps=8), 0)
    assert len({tuple(window.tolist()) for window in many}) == 8
    other = training_windows(loaded, DOCUMENTS, settings(steps=8), 1)
    assert [window.tolist() for window in other] != [window.tolist() for window in many]


def test_a_text_or_a_model_too_short_for_a_window(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    with pytest.raises(UserError, match=r"tokens, fewer than a window of 128; lower recover\.tokens_per_step"):
        training_windows(loaded, ["the cat"], settings(tokens_per_step=128), 0)
    with pytest.raises(UserError, match=r"recover\.tokens_per_step is 129, the model takes 128 tokens; lower it"):
        training_windows(loaded, DOCUMENTS, settings(tokens_per_step=129), 0)


# The stage.


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt"])
def test_the_recipe_gives_back_what_was_trained(project: Path, run_stage: RunStage, method: str) -> None:
    prepare(project, run_stage, prune__method=method)
    finished = run_stage("recover")
    assert finished.status == 0, finished.err
    checkpoint = Checkpoint(Path("data/model"))
    before, after = (materialize(checkpoint, Path("data") / name) for name in ("pruned", "recovered/pruned"))
    changed = 0
    for name, weight in after.weights.items():
        assert weight.ndim == 1 or not torch.any(weight[before.weights[name] == 0]), name
        changed += int(torch.count_nonzero(weight != before.weights[name]))
    assert changed > 1000
    assert {name: mask.tolist() for name, mask in after.masks.items()} == {
        name: mask.tolist() for name, mask in before.masks.items()
    }
    losses = pd.read_csv("data/recovered/pruned/losses.csv")
    assert losses["step"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (losses["loss"] > 0).all()
    assert not Path("data/checkpoints").exists() or not any(Path("data/checkpoints").iterdir())


@pytest.mark.parametrize("variant", ["merged_2", "compressed_2", "pruned-tied-head", "distilled"])
def test_the_other_models_recover_too(
    project: Path, run_stage: RunStage, tiny_folders: dict[str, Path], variant: str
) -> None:
    distilled = {"source": "local", "path": str(tiny_folders["llama"])}
    prepare(project, run_stage, compare__variants=[variant], distilled=distilled)
    for stage in (("shrink",), ("recover_others", variant)):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    checkpoint = Checkpoint(Path("data/model"))
    before, after = (materialize(checkpoint, Path("data") / name / variant) for name in ("variants", "recovered"))
    assert before.weights.keys() == after.weights.keys()
    assert after.config == before.config
    for name, weight in after.weights.items():
        assert torch.equal(weight[before.weights[name] == 0], before.weights[name][before.weights[name] == 0])
    moved = sum(int(torch.count_nonzero(weight != before.weights[name])) for name, weight in after.weights.items())
    # The distilled one is the original here, so it has nothing to learn.
    assert moved > 1000 or variant == "distilled"


def test_off_it_takes_the_recipe_over(project: Path, run_stage: RunStage) -> None:
    prepare(project, run_stage, recover__steps=0)
    assert run_stage("recover").status == 0
    recovered = contents(Path("data/recovered/pruned"))
    assert recovered.pop("losses.csv") == b"step,loss,learning_rate\n"
    assert recovered == contents(Path("data/pruned"))


def test_a_learning_rate_that_diverges(project: Path, run_stage: RunStage) -> None:
    prepare(project, run_stage, recover__learning_rate=1e30, recover__steps=12)
    finished = run_stage("recover")
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert line.startswith("error: recover: recovery diverged (its ")
    assert "is not finite); lower recover.learning_rate in params.yaml" in line
    assert line.endswith("(no state had been saved)")
    assert [path.name for path in Path("data/recovered").iterdir()] == ["original"]


def test_the_last_good_state_is_kept_where_it_diverges_later(tiny_folder: Path, original: Path, tmp_path: Path) -> None:
    chosen, model = settings(steps=8), pruned(tiny_folder, original)
    teacher = load(tiny_folder, original, CPU)
    windows = training_windows(model, DOCUMENTS, chosen, 0)
    seen = iter(range(100))
    original_forward = teacher.model.forward

    def later_infinite(*arguments: Any, **named: Any) -> Any:
        outputs = original_forward(*arguments, **named)
        if next(seen) >= 6:  # four steps, and a look before each of two saved states
            outputs.logits[:] = torch.nan
        return outputs

    teacher.model.forward = later_infinite
    with pytest.raises(UserError, match=r"its loss is not finite\).*kept in .*step-4\)"):
        train(model, teacher, windows, chosen, tmp_path)
    states = sorted(path.name for path in tmp_path.iterdir())
    assert states == ["step-2", "step-4"]
    kept = load_file(tmp_path / "step-4" / "state.safetensors")
    assert {name for name, _ in model.model.named_parameters()} <= {name.removeprefix("weight ") for name in kept}
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())


def test_text_that_is_scored_is_not_trained_on(project: Path, run_stage: RunStage) -> None:
    lines = [prose(60, seed) for seed in range(10)]
    write_jsonl(project / "mine" / "text.jsonl", [{"text": line} for line in lines * 2])
    for changes, stage in (
        ({"recover.steps": 2}, "recover"),
        ({"prune.method": "wanda"}, "prune"),
        ({}, "shrink"),
    ):
        write_params(project, changed_params({**changes, "text.format": "table", "text.path": "mine/text.jsonl"}))
        for item in ("model", "distilled", "text"):
            assert run_stage("download", item).status == 0
        if stage == "recover":
            assert run_stage("prune").status == 0
        finished = run_stage(stage)
        assert finished.status == 1
        (line,) = finished.err.splitlines()
        assert line.startswith(f"error: {stage}: the text has a document under train that is scored as well ('")


# Kills.


RECOVER = """
import runpy
from stages.lib.recovery import states
states.SECONDS_APART = 0
runpy.run_module("stages.recover", run_name="__main__")
"""


def begun(repository: Repository) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", RECOVER],
        cwd=repository.folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", list(TINY))
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, tiny_folders: dict[str, Path], family: str) -> None:
    repository = Repository.create(tmp_path, tiny_folders[family])
    write_params(tmp_path, changed_params({"recover.steps": 400}))
    repository.dvc("repro", "recover")
    undisturbed = contents(tmp_path / "data/recovered")
    killed = 0
    for saved in (100, 200, 300):
        process = begun(repository)
        while process.poll() is None:
            if list(tmp_path.glob(f"data/checkpoints/pruned/*/step-{saved}")):
                time.sleep(0.02 * killed)  # in the middle of saving, after it, and later
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.001)
        process.wait()
    assert killed == 3
    assert begun(repository).wait() == 0
    assert contents(tmp_path / "data/recovered") == undisturbed
    assert not list(tmp_path.glob("data/checkpoints/*"))


@pytest.mark.slow
def test_the_study_with_recovery(finished_repository: Repository, tmp_path: Path) -> None:
    repository = finished_repository.copy(tmp_path / "repository")
    assert ran(repository.dvc("repro")) == set()
    changed = repository.dvc("exp", "run", "-S", "recover.steps=5")
    runs = {"recover", "post-ppl", "classify@pruned", "summarize@pruned", "measure@pruned", "report"}
    others = ("recover-others", "compare", "measure-others")
    runs |= {f"{stage}@{name}" for stage in others for name in ("merged_2", "compressed_2")}
    assert ran(changed) == runs
    report = (repository.folder / "report/report.md").read_text()
    assert "Before recovery, perplexity was" in report
    table = pd.read_csv(repository.folder / "metrics/summary.csv", index_col="model")
    before = pd.read_csv(finished_repository.folder / "metrics/summary.csv", index_col="model")
    for model in ("pruned", "merged_2", "compressed_2"):
        assert table.loc[model, "perplexity_before_recovery"] == before.loc[model, "perplexity"]
        assert table.loc[model, "perplexity"] != before.loc[model, "perplexity"]
    verified = repository.run("python", "-m", "stages.verify")
    assert verified.status == 0, verified.out
    shown = json.loads(repository.dvc("plots", "show", "--json"))
    assert "loss in recovery" in shown["data"]
