"""Accuracy as an `evaluate` metric that works offline."""

from typing import Any

import datasets
import evaluate
from sklearn.metrics import accuracy_score


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """The share of examples whose prediction is their reference."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="The share of examples whose prediction is their reference.",
            citation="",
            inputs_description="predictions and references: class numbers, one an example",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, *, predictions: list[int], references: list[int], **_: Any) -> dict[str, float]:
        return {"accuracy": float(accuracy_score(references, predictions))}
