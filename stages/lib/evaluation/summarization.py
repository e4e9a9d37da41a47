"""Summaries by a causal language model, the text that it adds to a prompt, and their ROUGE."""

import re
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from tqdm import tqdm
from transformers import GenerationConfig

from stages.lib.evaluation.prompts import end_tokens, prompts, uses_chat
from stages.lib.evaluation.rouge import KINDS, Rouge
from stages.lib.files.errors import UserError, reason_of
from stages.lib.files.sampling import draw
from stages.lib.inference.batches import by_length, ignores_pads, pad
from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Summarize

_CLOSING = r"[\"')\]”’»›」』）】》〉］｣〕〗]*"
# A sentence ends at . ! ? … before white space, since a period may stand in a number; the signs of other scripts end
# it anywhere.
_SENTENCE = re.compile(rf".*?(?:[.!?…]{_CLOSING}(?=\s|$)|(?:[。｡！？।॥؟۔።။។։།]|．(?!\d))+{_CLOSING})", re.DOTALL)


def predict_summaries(
    loaded: Loaded, documents: pd.DataFrame, settings: "Summarize", seed: int, may_be_empty: bool
) -> pd.DataFrame:
    """Summarize the documents: each one's summary and its ROUGE, and that of the document's first sentence.

    Columns: document, summary, rouge1, rouge2, rougeL, lead_rouge1, lead_rouge2, lead_rougeL. Raises UserError if
    there are too few documents, and if all summaries are empty unless they may be.
    """
    documents = draw(documents, settings.examples, seed, "summarize.examples", settings.order)
    references = documents["summary"].tolist()
    summaries = summarize(loaded, documents, settings)
    if not (may_be_empty or any(summaries)):
        asks = "instruction" if uses_chat(loaded, settings) else "cue"
        raise UserError(
            f"summaries: the model adds no text to any of {len(summaries)} documents; change summarize.{asks}, or "
            "raise summarize.max_new_tokens in params.yaml"
        )
    rouge = Rouge(keep_in_memory=True)
    scores = rouge.compute(predictions=summaries, references=references)
    lead = rouge.compute(predictions=[lead_sentence(text) for text in documents["text"]], references=references)
    return pd.DataFrame(
        {
            "document": documents["document"],
            "summary": summaries,
            **{kind: scores[kind] for kind in KINDS},
            **{f"lead_{kind}": lead[kind] for kind in KINDS},
        }
    )


def lead_sentence(document: str) -> str:
    """The document's first sentence: the baseline for a summary."""
    text = document.strip()
    sentence = _SENTENCE.match(text)
    return sentence.group() if sentence else text


@torch.inference_mode()
def summarize(loaded: Loaded, documents: pd.DataFrame, settings: "Summarize") -> list[str]:
    """The text that the model adds to each document's prompt, without special tokens.

    Columns: document, text. Raises UserError if a logit of the next token is not finite, and as `prompts` does.
    """
    loaded.model.generation_config = _generation(loaded, settings)  # first: a chat template that always fails says so
    tokens = prompts(loaded, documents, settings)
    summaries = [""] * len(documents)
    batch_size = settings.batch_size if ignores_pads(loaded) else 1
    finite = loaded.model.get_output_embeddings().register_forward_hook(partial(_check_logits, loaded.runs_on.dtype))
    with finite, tqdm(total=len(documents), unit="doc", desc="summaries") as progress:
        for batch in by_length([len(prompt) for prompt in tokens], batch_size):
            ids, mask = (part.to(loaded.device) for part in pad([tokens[index] for index in batch], 0, "left"))
            try:
                added = loaded.model.generate(input_ids=ids, attention_mask=mask)
            except ValueError as error:
                raise UserError(
                    f"{loaded.structure.model_type} cannot generate with these settings ({reason_of(error)}); "
                    "set summarize.num_beams to 1 in params.yaml"
                ) from None
            texts = loaded.tokenizer.batch_decode(added[:, ids.shape[1] :], skip_special_tokens=True)
            for index, text in zip(batch, texts, strict=True):
                summaries[index] = text.strip()
            progress.update(len(batch))
    return summaries


def _check_logits(dtype: torch.dtype, head: torch.nn.Module, inputs: object, logits: torch.Tensor) -> None:
    check_finite(logits[:, -1], "the logits of the next token", dtype)


def _generation(loaded: Loaded, settings: "Summarize") -> GenerationConfig:
    """Beam or greedy search; only the end of text is taken from the model's own settings."""
    ends = end_tokens(loaded, settings)
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.num_beams,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        do_sample=False,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else None,
    )
