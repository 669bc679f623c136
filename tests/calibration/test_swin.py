"""Static keys and maps in the windows of a Swin."""

import numpy as np
import pytest
import torch
from PIL import Image

from sk_transformers import SKSwinConfig, SKSwinForImageClassification, SKSwinModel, calibrate
from sk_transformers.calibration.images import divide, loader_of
from sk_transformers.calibration.options import FitOptions
from sk_transformers.calibration.source import source_of
from sk_transformers.data.options import DataOptions
from sk_transformers.data.unlabeled import from_memory
from sk_transformers.pretrained import load_base_model, load_classifier
from tests.support.networks import drawn

# Layers 1 and 3 cut a rolled map, of 2x2 windows, three of which have a mask.
SHAPE = {"image_size": 32, "hidden_sizes": [16, 32], "depths": [2, 2], "window_size": 4, "head_dim": 8}
SETTINGS = {"fit_batch_size": 8, "held_out": 8}


def swin(model_class=SKSwinModel, **overrides):
    config = SKSwinConfig(**{**SHAPE, "token_mixers": "attention", "downsampling": 1, **overrides})
    return drawn(model_class(config)).float().eval()


def noise(count):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize("kind", ["static_map", "conv_static_key+bias"])
def test_weights_of_distances_alone_are_reproduced(kind, tmp_path):
    """In an image of one color all tokens are equal: weights depend on the relative bias and on the mask, exactly."""
    model, colors = swin(), [Image.new("RGB", (32, 32), (10 * shade, 200, 250 - 9 * shade)) for shade in range(24)]
    result = calibrate(model, colors, tmp_path / "out", layers="0-3", mixer=[kind], fit_steps=0, **SETTINGS)
    assert result.after["error"] < 1e-6
    found, _ = load_base_model(str(result.folder))
    assert found.config.mixers_of_stage(1) == [(kind.split("+")[0], "full")] * 2
    pixel_values = torch.tensor([0.3, -1.2, 0.8])[:, None, None].expand(1, 3, 32, 32)
    with torch.no_grad():
        wanted, output = (one.eval()(pixel_values).last_hidden_state for one in (model, found))
    torch.testing.assert_close(output, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["static_map", "static_key+bias"])
def test_the_error_is_that_of_the_network_that_was_written(kind, tmp_path):
    model, images = swin(SKSwinForImageClassification, downsampling=2, num_labels=3), noise(24)
    result = calibrate(model, images, tmp_path / "out", layers="1-2", mixer=[kind], fit_steps=10, **SETTINGS)
    found, _ = load_classifier(str(result.folder))
    mixer = kind.split("+")[0]
    assert found.config.token_mixers == ["attention", mixer, mixer, "attention"]
    data, source = divide(from_memory(images), FitOptions(**SETTINGS)), source_of(model, None, None)
    batches = loader_of(data.validation, source, DataOptions("images in memory"))
    pixel_values = torch.cat([batch["pixel_values"] for batch in batches])
    with torch.no_grad():
        wanted, output = (one.eval().base_model(pixel_values).last_hidden_state.double() for one in (model, found))
    error = (output - wanted).square().sum() / (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    assert float(error) == pytest.approx(result.after["error"], rel=1e-4) and 0 < error < 1


def test_a_fit_lowers_the_error(tmp_path):
    options = {"layers": "1", "mixer": ["static_key"], **SETTINGS}
    results = [calibrate(swin(), noise(24), tmp_path / f"{steps}", fit_steps=steps, **options) for steps in (0, 20)]
    assert results[1].after["error"] < results[0].after["error"]


def test_what_calibration_cannot_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has a map of 4x4 positions in stage 2 at 32 pixels, which is smaller than"):
        calibrate(swin(downsampling=2, window_size=7), noise(24), tmp_path / "small")
    separate = swin(token_mixers=["static_key", "attention"], window_keys="separate")
    with pytest.raises(ValueError, match="window_keys='separate': calibration fits one key for all windows"):
        calibrate(separate, noise(24), tmp_path / "separate")
