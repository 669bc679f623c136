"""Accuracy as an `evaluate` metric that needs no network."""

import datasets
import evaluate

TOP_K = 5

DESCRIPTION = "Top-1 and top-5 accuracy: how often the right class is the first, or among the first five, predicted."
INPUTS = "predictions: the five most likely classes of each image, best first. references: the right classes."


class TopKAccuracy(evaluate.Metric):
    """`{"top1": ..., "top5": ...}`, fractions; top-5 of fewer than five classes is of all of them."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions: list[list[int]], references: list[int]) -> dict[str, float]:
        pairs = list(zip(predictions, references))
        return {
            "top1": sum(predicted[0] == right for predicted, right in pairs) / len(pairs),
            "top5": sum(right in predicted[:TOP_K] for predicted, right in pairs) / len(pairs),
        }
