"""Accuracy as an `evaluate` metric that works offline."""

from typing import Any

import datasets
import evaluate


class Accuracy(evaluate.Metric):  # type: ignore[misc]
    """Whether each example's prediction is its reference; their mean is the accuracy."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="1 for each example whose prediction is its reference, else 0.",
            citation="",
            inputs_description="predictions and references: class numbers, one an example",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, *, predictions: list[int], references: list[int], **_: Any) -> dict[str, list[float]]:
        return {"accuracy": [float(said == true) for said, true in zip(predictions, references, strict=True)]}
