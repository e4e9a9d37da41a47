"""Ready models: a base checkpoint with a recipe applied, and its tokenizer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from stages.lib.compute import Device
from stages.lib.errors import UserError
from stages.lib.recipes import pruned_masks, read_recipe


@dataclass(frozen=True)
class Loaded:
    """A causal language model in evaluation mode, its tokenizer, and what is pruned in it."""

    model: PreTrainedModel
    tokenizer: Any
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """By parameter name, True where pruned; filled only where it was asked for."""

    @property
    def body(self) -> torch.nn.Module:
        """The model without its language-model head."""
        body: torch.nn.Module = self.model.base_model
        return body

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def context_length(self) -> int:
        """The largest number of tokens that the model takes."""
        return int(self.model.config.max_position_embeddings)


def load(base: Path, recipe: Path, device: Device, keep_masks: bool = False) -> Loaded:
    """Load a base model folder and apply a recipe folder to it.

    Raises UserError if either is missing or damaged, or the recipe is for another base.
    """
    what = read_recipe(recipe)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype=device.dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{base}: cannot be loaded ({error}); run `dvc checkout` or `dvc repro`") from None
    masks: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, mask in pruned_masks(what, base):
            pruned = torch.from_numpy(mask)
            model.get_parameter(name).masked_fill_(pruned, 0)
            if keep_masks:
                masks[name] = pruned.to(device.device)
    model.to(device.device).eval()
    return Loaded(model, tokenizer, masks)
