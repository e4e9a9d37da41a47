"""Loading: merged blocks share one parameter, tokens fit the model, and a lack of memory is reported as such."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, DEPTH_KEY, TINY, TINY_PARAMS, document_rows, feed_forwards, load, merged_by_three
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.lib.evaluation.summarization import summarize
from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.device import Device
from stages.lib.plumbing.params import Summarize
from stages.lib.reporting.exporting import export


@pytest.fixture(params=list(TINY))
def base(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model of four blocks, which merged_3 makes groups of three and one."""
    folder = tmp_path / "base"
    TINY[request.param](**{DEPTH_KEY[request.param]: 4}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return folder


@pytest.fixture
def merged(base: Path, tmp_path: Path) -> Path:
    return merged_by_three(base, tmp_path / "merged")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_blocks_are_one_parameter(base: Path, merged: Path, dtype: torch.dtype) -> None:
    model = load(base, merged, Device(CPU.device, dtype)).model
    every = list(model.parameters())
    for group in feed_forwards(base):
        shared = [model.get_parameter(name) for name in group]
        assert len({weight.data_ptr() for weight in shared}) == 1
        assert sum(weight is shared[0] for weight in every) == 1
        assert all(weight is shared[0] for weight in shared)
    distinct = {weight.data_ptr() for weight in every}
    assert len(distinct) == len(every)


def test_its_gradient_is_the_sum_over_the_blocks(base: Path, merged: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(base, merged, tmp_path / "out")
    copies, shared = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval(), load(base, merged, CPU).model
    ids = torch.arange(5, 60)[None]
    for model in (copies, shared):
        model(ids, labels=ids).loss.backward()
    for group in feed_forwards(base):
        gradients = [copies.get_parameter(name).grad for name in group]
        assert not torch.allclose(gradients[0], gradients[1], atol=1e-6)
        torch.testing.assert_close(shared.get_parameter(group[0]).grad, sum(gradients), rtol=1e-4, atol=1e-6)


def test_a_merged_model_computes_what_its_copies_compute(base: Path, merged: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(base, merged, tmp_path / "out")
    ids = torch.arange(5, 60)[None]
    copies = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(load(base, merged, CPU).model(ids).logits, copies(ids).logits)


def test_a_token_beyond_the_embedding_is_one_line(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    assert torch.isfinite(loaded.body(input_ids=torch.tensor([[0, 319]])).last_hidden_state).all()
    with pytest.raises(UserError, match=r"gives token 320, the model has 320 tokens from 0; .*its own tokenizer"):
        loaded.body(input_ids=torch.tensor([[5, 320]]))


@pytest.mark.parametrize("fault", ["DefaultCPUAllocator: can't allocate memory: you tried to", "CUDA out of memory."])
def test_a_lack_of_memory_is_no_damage(
    tiny_folder: Path, original: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError(fault)

    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", fail)
    with pytest.raises(RuntimeError, match=fault):
        load(tiny_folder, original, CPU)


@torch.inference_mode()
def test_summaries_of_a_model_that_overflows_are_one_line(tiny_folder: Path, original: Path) -> None:
    """Which gives tokens all the same: the first one, again and again."""
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), torch.float16))
    for weight in loaded.model.parameters():
        weight.mul_(300)
    chosen = Summarize.model_validate(TINY_PARAMS["summarize"])
    says = r"the logits of the next token are not finite in float16; set compute\.dtype to float32"
    with pytest.raises(UserError, match=says):
        summarize(loaded, document_rows(["the cat sat on a mat", "rain"]), chosen)
