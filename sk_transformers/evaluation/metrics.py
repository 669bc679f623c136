"""Accuracy as an `evaluate` metric that needs no network."""

import datasets
import evaluate
import torch

TOP_K = 5

DESCRIPTION = "Top-1 and top-5 accuracy: how often the right class is the first, or among the first five, predicted."
INPUTS = "predictions: the five most likely classes of each image, best first. references: the right classes."


class TopKAccuracy(evaluate.Metric):
    """`{"top1": ..., "top5": ...}`, fractions; top-5 only of predictions that are five."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Sequence(datasets.Value("int64")), "references": datasets.Value("int64")}
            ),
        )

    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, predictions: list[list[int]], references: list[int]
    ) -> dict[str, float]:
        pairs = list(zip(predictions, references))
        figures = {"top1": sum(predicted[0] == right for predicted, right in pairs) / len(pairs)}
        if len(predictions[0]) >= TOP_K:
            figures["top5"] = sum(right in predicted[:TOP_K] for predicted, right in pairs) / len(pairs)
        return figures


def class_scores(predicted: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Return what counts each class alike, however many images it has, from classes `(images,)`.

    They are scikit-learn's `balanced_accuracy`, the mean accuracy of the classes that there are, and `macro_f1`, the
    mean F1 of those that there are or that were predicted.
    """
    classes = int(torch.maximum(predicted, labels).max()) + 1
    right = labels[predicted == labels].bincount(minlength=classes).double()
    of_class, as_class = labels.bincount(minlength=classes), predicted.bincount(minlength=classes)
    recall, f1 = right / of_class, 2 * right / (of_class + as_class)
    return {"balanced_accuracy": recall.nanmean().item(), "macro_f1": f1.nanmean().item()}
