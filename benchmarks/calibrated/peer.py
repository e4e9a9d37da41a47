"""Prunes a model with llmcompressor, in the environment of requirements.txt beside it.

python peer.py MODEL WINDOWS METHOD SPARSITY STRUCTURE OUT

MODEL is a Hugging Face folder, WINDOWS a safetensors file of token ids, STRUCTURE 0:0 or N:M as
llmcompressor means it, N of M pruned. The weights go to OUT, the seconds to standard output.
"""

import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main(folder: str, windows: str, method: str, sparsity: str, structure: str, out: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = load_file(windows)["windows"]
    text = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    modifier = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    recipe = modifier(sparsity=float(sparsity), mask_structure=structure, targets=["Linear"], ignore=["re:.*lm_head"])
    started = time.monotonic()
    oneshot(
        model=model,
        dataset=text,
        recipe=recipe,
        num_calibration_samples=len(ids),
        max_seq_length=ids.shape[1],
        shuffle_calibration_samples=False,
        pipeline="sequential",
    )
    seconds = time.monotonic() - started
    weights = {name: weight.detach().contiguous() for name, weight in model.named_parameters() if weight.ndim == 2}
    save_file({name: weight for name, weight in weights.items() if "layers" in name}, Path(out))
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
