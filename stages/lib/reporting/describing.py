"""Describes the structure of a checkpoint in words and tables: what can be pruned, and what is left out and why."""

from collections import defaultdict
from math import prod

import pandas as pd

from stages.lib.weights.structure import Matrix, Structure


def described(structure: Structure, where: object) -> str:
    """The description of a structure that was read `where`."""
    sizes = {name: prod(shape) for name, shape in structure.tensors.items()}
    prunable, total = sum(sizes[name] for name in structure.prunable), sum(sizes.values())
    head = "tied to the token embedding" if structure.tied else structure.head
    lines = [
        f"{where}: {structure.model_type}, {structure.depth} blocks in {structure.block_list}",
        f"token embedding {structure.embedding}, head {head}",
        f"{total:,} parameters, of which {prunable:,} ({prunable / total:.1%}) are prunable",
        "",
        _table(_kinds(structure)),
        "",
        _table(_left_out(structure, sizes)),
        "",
        f"merged_n: {_merging(structure)}",
    ]
    return "\n".join(lines)


def _kinds(structure: Structure) -> pd.DataFrame:
    by_kind: dict[str, list[Matrix]] = defaultdict(list)
    for matrix in structure.all_matrices:
        by_kind[matrix.kind].append(matrix)
    rows = [
        {
            "prunable": kind,
            "outputs × inputs": ", ".join(dict.fromkeys(map(_shape, matrices))),
            "matrices": f"{sum(len(matrix.sizes) for matrix in matrices):,}",
            "weights": f"{sum(matrix.size for matrix in matrices):,}",
        }
        for kind, matrices in by_kind.items()
    ]
    return pd.DataFrame(rows)


def _shape(matrix: Matrix) -> str:
    inputs = matrix.shape[matrix.input_axis]
    return f"{matrix.sizes[0] // inputs:,} × {inputs:,}"


def _left_out(structure: Structure, sizes: dict[str, int]) -> pd.DataFrame:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in structure.left_out.items():
        by_reason[reason].append(name)
    rows = [
        {
            "left out": reason,
            "for example": names[0],
            "tensors": f"{len(names):,}",
            "weights": f"{sum(sizes[name] for name in names):,}",
        }
        for reason, names in by_reason.items()
    ]
    return pd.DataFrame(rows)


def _table(rows: pd.DataFrame) -> str:
    """Text on the left, numbers on the right."""
    columns = []
    for position, (title, values) in enumerate(rows.items()):
        cells = [str(title), *values]
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if position < 2 else cell.rjust(width) for cell in cells])
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def _merging(structure: Structure) -> str:
    if structure.unmerged:
        return f"not possible, since {structure.unmerged}"
    feed_forward = structure.feed_forwards[0]
    inside = (tensor.name.removeprefix(f"{structure.module(0)}.") for tensor in feed_forward.tensors)
    return f"{feed_forward.neurons:,} neurons per block, in {', '.join(inside)}"
