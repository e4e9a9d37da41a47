"""A model's weights under the names of its checkpoint, which may differ from those in the module tree.

A checkpoint of Mixtral, for example, has one matrix per expert where the model has one parameter for all experts.
transformers knows how to turn one into the other, in both directions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion


class _WithoutCopies(TorchFunctionMode):
    """Makes `contiguous` return the tensor itself, so that a part of a parameter stays a view of it."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return args[0] if func is torch.Tensor.contiguous else func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class StoredWeight:
    """A weight as its checkpoint has it."""

    weight: torch.Tensor
    """In the memory of the model's parameter, without a gradient."""
    parameter: str
    """The name of that parameter, or buffer, which may hold more than this weight."""


def stored_weights(model: PreTrainedModel) -> dict[str, StoredWeight]:
    """A model's weights by name in the checkpoint, in state-dict order; a tied head is left out.

    Raises ValueError if a tensor of the checkpoint is several parameters of the model.
    """
    own: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    for tied, source in getattr(model, "all_tied_weights_keys", {}).items():
        if tied in own and own[tied] is own.get(source):
            del own[tied]
    own = {name: weight.detach() for name, weight in own.items()}
    with _WithoutCopies(), torch.no_grad():
        stored: dict[str, torch.Tensor] = revert_weight_conversion(model, own)
    names = {id(weight): name for name, weight in own.items()}
    found: dict[str, StoredWeight] = {}
    for name, weight in stored.items():
        parameter = names.get(id(weight)) or names.get(id(weight._base))
        if parameter is None:
            raise ValueError(f"{name} in its files is several parameters of the model")
        found[name] = StoredWeight(weight, parameter)
    order = {name: number for number, name in enumerate(own)}
    return dict(sorted(found.items(), key=lambda item: order[item[1].parameter]))
