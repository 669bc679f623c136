"""Adversarial patches: the worst patch of a network that tells it, and what a static key keeps from it."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sk_transformers.cli.evaluate import main
from sk_transformers.evaluation.patch_attack import (
    PLACES,
    PatchAttack,
    attack_images,
    draw_patches,
    with_patches,
)
from sk_transformers.hub.export import export
from sk_transformers.image_processing import image_processor_for

from ..support.small_models import small_model

BOUNDS = torch.full((3, 1, 1), -2.0), torch.full((3, 1, 1), 3.0)


class LinearClassifier(nn.Module):
    """Two classes, by a number for each pixel."""

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(2, 3 * 8 * 8, generator=torch.Generator().manual_seed(0))

    def forward(self, pixel_values):
        return SimpleNamespace(logits=pixel_values.flatten(1) @ self.weight.T)


def test_the_worst_patch_of_a_linear_classifier_is_found():
    """It is black where a pixel speaks for the right class more than for the other, and white elsewhere."""
    model, attack = LinearClassifier(), PatchAttack(3, 4)
    images = torch.randn(2, 3, 8, 8)
    labels, corners = torch.tensor([0, 1]), torch.tensor([[1, 4], [5, 0]])
    attacked = attack_images(model, images, labels, attack, corners, torch.rand(2, 3, 3, 3), BOUNDS)
    for image, label, (row, column), found in zip(images, labels, corners.tolist(), attacked):
        speaks_for_right = (model.weight[label] - model.weight[1 - label]).view(3, 8, 8)
        worst = torch.where(speaks_for_right > 0, -2.0, 3.0)
        expected = image.clone()
        expected[:, row : row + 3, column : column + 3] = worst[:, row : row + 3, column : column + 3]
        torch.testing.assert_close(found, expected)


def test_what_is_drawn_depends_on_the_image_alone():
    images, attack = torch.randn(3, 3, 10, 12), PatchAttack(4, 1)
    for place in PLACES:
        together, alone = draw_patches(images, attack, place), draw_patches(images[1:2], attack, place)
        assert all(torch.equal(both[1:2], one) for both, one in zip(together, alone))
    corners, _ = draw_patches(torch.randn(200, 3, 10, 12), attack, "random")
    assert corners.amin(dim=0).tolist() == [0, 0] and corners.amax(dim=0).tolist() == [6, 8]
    assert draw_patches(images, attack, "corner")[0].tolist() == [[6, 8]] * 3


@pytest.mark.parametrize(
    ("mixer", "keeps"), [("static_key", True), ("conv_static_key", True), ("static_map", True), ("attention", False)]
)
def test_first_layers_with_static_keys_keep_the_weights_of_rows_outside_the_patch(mixer, keeps):
    """To the bit: their queries see themselves, or their neighbors, and keys that are no image's."""
    model = small_model("skvit", image_size=32, token_mixer=mixer, pooling="mean")
    images = torch.randn(2, 3, 32, 32)
    changed = with_patches(images, torch.randn(2, 3, 4, 4), torch.tensor([[28, 28]] * 2))  # the last of 8x8 tokens
    with torch.no_grad():
        weights, attacked = (model(x, output_attentions=True).attentions[0] for x in (images, changed))
    rows = torch.ones(8, 8, dtype=torch.bool)
    rows[6:, 6:] = False  # the token and its neighbors
    grid = slice(-64, None)  # positions, after the class token
    same = (weights[:, :, grid] == attacked[:, :, grid]).all(dim=-1)[:, :, rows.flatten()]
    assert same.all() if keeps else not same.any()


def test_an_evaluation_reports_it(tmp_path, capsys):
    model = small_model("skvit", num_labels=10, id2label={i: str(i) for i in range(10)})
    repo = export(model, image_processor_for(16), tmp_path / "model")
    options = ["--model", str(repo), "--dataset", "digits", "--max_eval_samples", "40", "--output_dir"]
    main([*options, str(tmp_path / "out"), "--patch_attack", "6,3"])
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    found = record["patch_attack"]
    assert (found["size"], found["steps"]) == (6, 3)
    for place in PLACES:
        low, high = found[place]["interval"]
        assert low <= found[place]["top1"] <= high and found[place]["top1"] <= record["top1"] + 0.05
    assert '"patch_attack"' in capsys.readouterr().out
    for value, message in {
        "6": "expected SIZE,STEPS",
        "0,3": "expected SIZE,STEPS",
        "17,3": "does not fit into",
    }.items():
        with pytest.raises(SystemExit, match=message):
            main([*options, str(tmp_path / "other"), "--patch_attack", value])
        assert not (tmp_path / "other").exists()
