"""Finds the neurons of each block's feed-forward, if that is of a known shape."""

from collections.abc import Mapping
from typing import Literal

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from stages.lib.weights.structure import FeedForward, NeuronTensor

_LAYERS = (
    (("gate_proj", "up_proj"), "down_proj"),
    (("gate_up_proj",), "down_proj"),
    (("up_proj",), "down_proj"),
    (("c_fc",), "c_proj"),
    (("fc1",), "fc2"),
    (("fc_in",), "fc_out"),
    (("dense_h_to_4h",), "dense_4h_to_h"),
)
"""Names of the layers before and after the neurons, in modules that hold both."""


def feed_forwards_of(
    model: PreTrainedModel, block_list: str, names: Mapping[str, str]
) -> tuple[tuple[FeedForward, ...], str]:
    """The feed-forward of each block, and an empty string; or none, and why they cannot be merged.

    `names` has each parameter's name in the checkpoint.
    """
    found: list[FeedForward] = []
    for block in (f"{block_list}.{number}" for number in range(len(model.get_submodule(block_list)))):
        modules = dict(model.get_submodule(block).named_modules(prefix=block))
        if any(hasattr(module, "num_experts") for module in modules.values()):
            return (), f"{block} has experts"
        known = [each for name, module in modules.items() if (each := _feed_forward(name, module, names))]
        if len(known) != 1:
            return (), f"{block} has no feed-forward of a known shape"
        found += known
    if len({each.neurons for each in found}) > 1:
        return (), "the blocks' feed-forwards differ in size"
    return tuple(found), ""


def _feed_forward(name: str, module: nn.Module, names: Mapping[str, str]) -> FeedForward | None:
    """The neurons between two layers of a module, None if there are none or something else is in between."""
    for before, after in _LAYERS:
        children = {
            child: layer
            for child in (*before, after)
            if isinstance(layer := getattr(module, child, None), nn.Linear | Conv1D)
        }
        if len(children) <= len(before):
            continue
        neurons = _width(children[after], "in")
        if any(
            weight.shape == (neurons,)  # a norm over the neurons, for example
            for child, other in module.named_children()
            if child not in children
            for weight in other.parameters()
        ):
            return None
        tensors: list[NeuronTensor] = []
        pre_activations = []
        for child in before:
            parts = _width(children[child], "out") // neurons
            pre_activations.append((f"{name}.{child}", parts))
            axis = 0 if isinstance(children[child], nn.Linear) else 1
            tensors.append(NeuronTensor(names[f"{name}.{child}.weight"], axis, parts))
            if children[child].bias is not None:
                tensors.append(NeuronTensor(names[f"{name}.{child}.bias"], 0, parts))
        axis = 1 if isinstance(children[after], nn.Linear) else 0
        tensors.append(NeuronTensor(names[f"{name}.{after}.weight"], axis))
        if children[after].bias is not None:
            tensors.append(NeuronTensor(names[f"{name}.{after}.bias"], None))
        return FeedForward(tuple(pre_activations), neurons, tuple(tensors))
    return None


def _width(layer: nn.Linear | Conv1D, end: Literal["in", "out"]) -> int:
    """The number of a layer's inputs or outputs."""
    outputs, inputs = layer.weight.shape if isinstance(layer, nn.Linear) else reversed(layer.weight.shape)
    return int(inputs if end == "in" else outputs)
