"""Scores the text by sparsity, and with each kind of matrix or each block pruned alone."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.lib.evaluation.perplexity import score_text
from stages.lib.files.places import MODEL, TEXT
from stages.lib.files.rows import read_rows
from stages.lib.inference.blockwise import BlockInputs
from stages.lib.inference.device import set_up
from stages.lib.inference.likelihood import TokenizedText, tokenize
from stages.lib.inference.loading import Loaded, load_original
from stages.lib.pruning.calibrated import restore
from stages.lib.pruning.importance import zero_smallest
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params, Perplexity, Sensitivity


def score_sensitivity(params: "Params") -> pd.DataFrame:
    """The scores of all points of `params.sensitivity`, as `score_points` returns them."""
    loaded = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
    text = tokenize(loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist()).head(params.sensitivity.tokens)
    return score_points(loaded, text, params.sensitivity, params.perplexity)


def score_points(
    loaded: Loaded, text: TokenizedText, settings: "Sensitivity", perplexity: "Perplexity"
) -> pd.DataFrame:
    """Score a text unpruned, at each sparsity, and with each kind of matrix or block pruned alone.

    Columns: pruned (nothing, sparsities, matrices or blocks), point (its sparsity, matrix or block), pruned_weights,
    effective_parameters, and those of `score`.
    """
    structure, inputs = loaded.structure, BlockInputs(loaded)
    zeros = count_zeros(loaded.checkpoint)
    non_zero = sum(loaded.checkpoint.size(name) - count for name, count in zeros.items())
    with inputs.recorded():
        dense = score_text(loaded, text, perplexity)
    tables = [{"pruned": "nothing", "point": "", "pruned_weights": 0, "effective_parameters": non_zero, **dense}]
    points: list[tuple[str, str, list[str], float, AbstractContextManager[None]]] = [
        *(("sparsities", str(share), structure.prunable, share, nullcontext()) for share in settings.sparsities),
        *(("matrices", kind, names, settings.alone, nullcontext()) for kind, names in structure.kinds.items()),
        *(
            ("blocks", str(block), structure.weights([block]), settings.alone, inputs.resumed(block))
            for block in range(structure.depth)
        ),
    ]
    for pruned, point, names, share, within in tqdm(points, unit="point", desc="sensitivity"):
        k = zero_smallest(loaded, names, share)
        effective = non_zero - max(0, k - sum(zeros[name] for name in names))
        with within:
            scores = score_text(loaded, text, perplexity) if k else dense
        if pruned != "sparsities" or share == settings.sparsities[-1]:  # masks of growing sparsity are nested
            restore(loaded, names)
        columns = {"pruned": pruned, "point": point, "pruned_weights": k, "effective_parameters": effective}
        tables.append({**columns, **scores})
    return pd.concat(map(pd.DataFrame, tables), ignore_index=True)


def count_zeros(checkpoint: Checkpoint) -> dict[str, int]:
    """How many entries of each tensor are zero; one pass over the weights."""
    return {
        name: sum(bits.size - int(np.count_nonzero(bits)) for bits in checkpoint.magnitudes(name))
        for name in checkpoint.names
    }
