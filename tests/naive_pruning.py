"""Pruning and updates by the formulas of their papers, without a thought for speed; inputs and gradients kept whole."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Matrix = npt.NDArray[np.float64]


def naive_wanda(weight: Matrix, read: Matrix, counts: list[int]) -> tuple[Matrix, Matrix]:
    """Each row sorted by itself; weight (outputs, inputs), read (tokens, inputs)."""
    scores = np.abs(weight) * np.sqrt((read**2).sum(axis=0))
    mask = np.zeros(scores.shape, dtype=bool)
    for row, count in enumerate(counts):
        mask[row, sorted(range(scores.shape[1]), key=lambda column: scores[row, column])[:count]] = True
    return mask, np.where(mask, 0, weight)


def damped(products: torch.Tensor) -> Matrix:
    """In float64, with a hundredth of the mean of the diagonal added to it."""
    found: Matrix = products.double().numpy()
    return found + 0.01 * np.mean(np.diag(found)) * np.eye(len(found))


def row_by_row(weight: Matrix, mask: npt.NDArray[np.bool_], products: Matrix) -> Matrix:
    """Each output solved by itself, on the weights that remain to it."""
    found = np.zeros_like(weight)
    for row, (before, pruned) in enumerate(zip(weight, mask, strict=True)):
        found[row, ~pruned] = np.linalg.solve(products[np.ix_(~pruned, ~pruned)], products[~pruned] @ before)
    return found


def naive_sparsegpt(weight: Matrix, read: Matrix, counts: list[int], at_once: int = 128) -> tuple[Matrix, Matrix]:
    """The inverse of what is left of H is computed anew for each column: Optimal Brain Surgeon as it stands.

    As in the authors' code, the weights of an input that is always zero cost nothing.
    """
    products = read.T @ read
    dead = np.diag(products) == 0
    products += np.diag(dead)
    damped = products + 0.01 * np.mean(np.diag(products)) * np.eye(len(products))
    inverses = [np.linalg.inv(damped[column:, column:]) for column in range(len(damped))]
    weight, mask = weight.copy(), np.zeros(weight.shape, dtype=bool)
    for start, count in zip(range(0, weight.shape[1], at_once), counts, strict=True):
        columns = range(start, min(start + at_once, weight.shape[1]))
        scores = {
            (row, column): 0 if dead[column] else weight[row, column] ** 2 / inverses[column][0, 0]
            for row in range(len(weight))
            for column in columns
        }
        for place in sorted(scores, key=lambda place: scores[place])[:count]:
            mask[place] = True
        for column in columns:
            for row in np.flatnonzero(mask[:, column]):
                inverse = inverses[column]
                weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]
                weight[row, column] = 0
    return mask, weight


class InputsOf(TorchFunctionMode):
    """Keeps all inputs that certain weights multiply, whichever module does it, by the weights' place in memory."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._names: dict[int, list[str]] = {}
        for name, weight in weights.items():
            self._names.setdefault(weight.data_ptr(), []).append(name)
        self._kept: dict[str, list[torch.Tensor]] = {name: [] for name in weights}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is functional.linear:
            self._keep(args[0], args[1])
        elif func is torch.addmm:
            self._keep(args[1], args[2])
        elif func in (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__):
            self._keep(args[0], args[1])
        return func(*args, **(kwargs or {}))

    def _keep(self, inputs: torch.Tensor, weight: torch.Tensor) -> None:
        for name in self._names.get(weight.data_ptr(), []):
            self._kept[name].append(inputs.detach().flatten(end_dim=-2))

    def of(self, name: str) -> Matrix:
        """The inputs of a weight. Shape: (tokens, inputs)."""
        return torch.cat(self._kept[name]).double().numpy()


@contextmanager
def tokens_kept(
    model: torch.nn.Module, names: Sequence[str]
) -> Iterator[tuple[dict[str, list[Any]], dict[str, list[Any]]]]:
    """What some layers read, and zeros added to what they give, whose gradients are those at their outputs."""
    inputs: dict[str, list[Any]] = {name: [] for name in names}
    zeros: dict[str, list[Any]] = {name: [] for name in names}

    def keep(name: str, layer: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        inputs[name].append(given[0].detach().flatten(end_dim=-2))
        zeros[name].append(torch.zeros_like(output, requires_grad=True))
        added: torch.Tensor = output + zeros[name][-1]
        return added

    with ExitStack() as hooks:
        for name in names:
            layer = model.get_submodule(name.removesuffix(".weight"))
            hooks.enter_context(layer.register_forward_hook(partial(keep, name)))
        yield inputs, zeros
