"""Weights of classes, in the loss and in sampling, against scikit-learn's and by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from sk_transformers.data.balance import balanced_weights, read_class_weights
from sk_transformers.data.loaders import EpochBatches, TrainLoader
from sk_transformers.training.command_line import parse_options
from sk_transformers.training.objective import Objective

from ..support.image_files import load_images, write_files


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(
        read_class_weights("balanced", list("abc"), [60, 30, 10], balanced_weights), expected, rtol=1e-6
    )
    assert balanced_weights([2, 0, 2]).tolist() == [1, 0, 1]


def test_weights_of_a_file(tmp_path):
    file = tmp_path / "weights.yaml"
    file.write_text("no: 2\n007: 0.5\ncat: 1e1\n")
    assert read_class_weights(str(file), ["007", "cat", "no"], None, balanced_weights).tolist() == [0.5, 10, 2]
    for text, sentence in [
        ("cat: 1", "has no weight for '007', 'no'"),
        ("{cat: 1, no: 1, 007: 1, eel: 1}", "has a weight for 'eel', which the data does not have"),
        ("{cat: 0, no: 1, 007: 1}", "the weight of 'cat' is 0, expected a number above 0"),
        ("{cat: [1], no: 1, 007: 1}", "the weight of 'cat' is .*1.*, expected a number above 0"),
        ("cat", "expected a weight for each class, as lines of the form name: 1.5"),
        ("{", "cannot be read"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=f"--class_weights .*weights.yaml.* ?{sentence}"):
            read_class_weights(str(file), ["007", "cat", "no"], None, balanced_weights)
    with pytest.raises(ValueError, match="a stream does not tell the sizes of classes, give a file"):
        read_class_weights("balanced", ["a", "b"], None, balanced_weights)


def test_the_loss_is_weighted_by_class():
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 0, 1, 2, 0, 0]), torch.tensor([0.5, 2.0, 3.0])

    def weighted(part):
        def model(pixel_values):
            return SimpleNamespace(logits=logits[part])

        return Objective(class_weights=weights)(model, torch.zeros(3), labels[part], mix=False)

    of_each = -logits.log_softmax(-1)[torch.arange(6), labels]
    torch.testing.assert_close(weighted(slice(6)), (weights[labels] * of_each).sum() / 6)
    on_two_processes = (weighted(slice(0, 3)) + weighted(slice(3, 6))) / 2
    torch.testing.assert_close(on_two_processes, weighted(slice(6)))


def test_images_are_drawn_as_often_as_their_classes_need(tmp_path):
    files = [f"{label}/{n}.png" for label, images in (("a", 40), ("b", 8), ("c", 2)) for n in range(images)]
    data = load_images(write_files(tmp_path, *files), train_val_split=0.1)
    loader = TrainLoader(data, None, 30, 20, seed=0, balanced=True)
    draws = [draw.row_index for batch in loader.order for draw in batch]
    shares = np.bincount(np.array(data.train["label"])[draws], minlength=3) / len(draws)
    assert len(draws) == 600 and np.abs(shares - 1 / 3).max() < 0.06
    again = EpochBatches(len(data.train), 15, 20, 0, rank=1, num_processes=2, weights=loader.order.weights)
    assert [draw for batch in again for draw in batch] == [draw for batch in loader.order for draw in batch[15:]]


def test_a_stream_is_not_balanced():
    with pytest.raises(ValueError, match="--balanced_sampling: a stream comes in its own order"):
        parse_options(["--model", "skvit-nano-patch4-32", "--dataset", "x", "--streaming", "--balanced_sampling"])
