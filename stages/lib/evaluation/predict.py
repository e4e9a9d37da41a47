"""Runs a model on the texts of some measures, and writes its predictions."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd

from stages.lib.evaluation.perplexity import BEFORE_RECOVERY, score, score_original, score_text
from stages.lib.files.errors import UserError
from stages.lib.files.parquet import absent_table, write_table
from stages.lib.files.places import (
    DOCUMENTS,
    FINAL_STATES,
    MODEL,
    REVIEWS,
    TEXT,
    MeasureName,
    predictions_path,
    recipe_folder,
    written_recipe,
)
from stages.lib.files.rows import read_rows
from stages.lib.inference.device import Device, set_up
from stages.lib.inference.final_states import OriginalStates
from stages.lib.inference.flops import flops_per_token
from stages.lib.inference.likelihood import tokenize
from stages.lib.inference.loading import check_causal, ready
from stages.lib.recipes.changed import RECOVERY, Changed
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.other_checkpoint import OtherCheckpoint
from stages.lib.recipes.recipe import apply, materialize, read_recipe, size_of
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params


def predict(model: str, measures: Collection[MeasureName], params: "Params") -> None:
    """Load a model once, and write its predictions for some measures, or why there is no such model.

    Raises UserError if a setting does not fit.
    """
    recipe = read_recipe(recipe_folder(model))
    if isinstance(recipe, LeftOut):
        for measure in measures:
            write_table(absent_table(recipe.reason), predictions_path(measure, model))
        return
    device, tables = set_up(params.compute, params.seed), {}
    checkpoint = Checkpoint(MODEL)  # hashed once
    unrecovered = _unrecovered_scores(model, checkpoint, device, params) if "perplexity" in measures else None
    made = materialize(checkpoint, recipe_folder(model))
    loaded = ready(made, device)
    if "size" in measures:  # before fine-tuning, which may change the weights
        tables["size"] = pd.DataFrame([size_of(made, recipe_folder(model))])
        tables["size"]["flops_per_token"] = flops_per_token(loaded, params.perplexity.context)
    if "perplexity" in measures:
        check_causal(loaded)
        text = tokenize(loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist())
        if model == "original":
            tables["perplexity"] = score_original(loaded, text, params.perplexity, FINAL_STATES)
        else:
            states = OriginalStates(FINAL_STATES, checkpoint, device)
            tables["perplexity"] = score_text(loaded, text, params.perplexity, states)
            if "kl" not in tables["perplexity"] and not isinstance(recipe, OtherCheckpoint):
                raise UserError(f"{FINAL_STATES}: not of this text in these windows; run `dvc repro baseline-ppl`")
            del states  # and the memory of the original's head
        if unrecovered is not None:
            tables["perplexity"][BEFORE_RECOVERY] = unrecovered["nll"]
    if "summarize" in measures:
        from stages.lib.evaluation.summarization import predict_summaries

        tables["summarize"] = predict_summaries(
            loaded, read_rows(DOCUMENTS), params.summarize, params.seed, may_be_empty=model != "original"
        )
    if "classify" in measures:  # the last one, since it may fine-tune the model
        from stages.lib.evaluation.classification import predict_classes

        rows = read_rows(REVIEWS, "train"), read_rows(REVIEWS, "test")
        if params.classify.mode == "all":
            del loaded  # and its memory
            loaded = ready(made, device.for_training(), keep_masks=True)
        tables["classify"] = predict_classes(loaded, *rows, params.classify, params.seed)
    for measure in measures:
        write_table(tables[measure], predictions_path(measure, model))


def _unrecovered_scores(model: str, checkpoint: Checkpoint, device: Device, params: "Params") -> pd.DataFrame | None:
    """The scores of a recovered model before recovery; None if it was not recovered."""
    folder = recipe_folder(model)
    recipe = read_recipe(folder)
    if not (isinstance(recipe, Changed) and recipe.by == RECOVERY):
        return None
    if model == "pruned":  # its method may have changed weights before
        made = materialize(checkpoint, written_recipe(model))
    else:
        made = apply(recipe.unchanged, checkpoint, folder)
    return score(ready(made, device), read_rows(TEXT, "test")["text"].tolist(), params.perplexity)
