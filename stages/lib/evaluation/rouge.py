"""ROUGE-1, -2 and -L as an `evaluate` metric that works offline, by the `rouge_score` package.

The words are those of `files.words`: `rouge_score` alone finds only letters from a to z and digits, and so none in most
scripts. In ASCII text both find the same words.

Lin, C.-Y. (2004). ROUGE: A Package for Automatic Evaluation of Summaries.
"""

from typing import Any

import datasets
import evaluate
from rouge_score import rouge_scorer, tokenizers

from stages.lib.files.words import words

KINDS = ["rouge1", "rouge2", "rougeL"]


class _Words(tokenizers.Tokenizer):  # type: ignore[misc]
    def tokenize(self, text: str) -> list[str]:
        return words(text)


class Rouge(evaluate.Metric):  # type: ignore[misc]
    """F-measures of each example, without stemming; of ASCII text, those of the hub's metric of this name."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, one per example.",
            citation="Lin, C.-Y. (2004). ROUGE: A Package for Automatic Evaluation of Summaries.",
            inputs_description="predictions and references: texts, one per example",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, *, predictions: list[str], references: list[str], **_: Any) -> dict[str, list[float]]:
        scorer = rouge_scorer.RougeScorer(KINDS, tokenizer=_Words())
        scores = [scorer.score(reference, text) for reference, text in zip(references, predictions, strict=True)]
        return {kind: [float(score[kind].fmeasure) for score in scores] for kind in KINDS}
