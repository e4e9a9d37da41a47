"""A model's weights under the names of its checkpoint, which may differ from those in the module tree.

A checkpoint of Mixtral, for example, has one matrix per expert where the model has one parameter for all experts.
transformers knows how to turn one into the other, in both directions.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from stages.lib.files.errors import UserError


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


def stored_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """By name in the checkpoint, in state-dict order, each weight as a parameter of the model or a view of one.

    A tied head is left out. Raises UserError if a tensor of the checkpoint is several parameters of the model.
    """
    own: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    for tied, source in getattr(model, "all_tied_weights_keys", {}).items():
        if tied in own and own[tied] is own.get(source):
            del own[tied]
    with _WithoutCopies(), torch.no_grad():
        stored: dict[str, torch.Tensor] = revert_weight_conversion(model, own)
    order = {id(tensor): number for number, tensor in enumerate(own.values())}
    for name, tensor in stored.items():
        if id(parameter_of(tensor)) not in order:
            raise UserError(
                f"{name} of a {model.config.model_type} checkpoint joins several parameters of the model, "
                "which is not supported; give a model of another architecture"
            )
    return dict(sorted(stored.items(), key=lambda item: order[id(parameter_of(item[1]))]))


def parameter_of(tensor: torch.Tensor) -> torch.Tensor:
    """The parameter that a stored weight is, or is a view of."""
    return tensor if tensor._base is None else tensor._base
