"""The authors' networks, through the script: from the file that they would save to the folder that users load."""

import pytest
import torch
from transformers import AutoModelForImageClassification

from sk_transformers.cli import convert as command

from ..support.networks import assert_close, fill, logits

MIXERS = {
    "caformer_s18": ["separable_conv", "separable_conv", "attention", "attention"],
    "stu_caformer_s18": ["separable_conv", "separable_conv", "static_key", "static_key"],
    "cstu_caformer_s18": ["separable_conv", "conv_static_key", "attention", "attention"],
    "vit_small": ["attention"] * 6,
    "vit_small_stu": ["static_key"] * 6,
    "vit_small_cstu": ["conv_static_key"] * 6,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MIXERS)
def test_a_golden_case_converts_in_one_command(name, tmp_path, capsys):
    case, expected = fill.load_case(name)
    torch.save(fill.state_dict(case), tmp_path / "source.pth")
    command.main([str(tmp_path / "source.pth"), str(tmp_path / "out"), "--license", "mit"])

    tensors = len(case["state_dict"])
    report = capsys.readouterr().out
    assert f"{tensors} read, {tensors} used, none left over, none missing" in report
    assert f"{case['parameters']:,} read, {case['parameters']:,} used" in report
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out", trust_remote_code=True)
    assert model.dtype == torch.float64  # the source's, so nothing is rounded
    assert model.config.token_mixers == MIXERS[name]
    assert model.num_parameters() == case["parameters"]
    assert_close(logits(model, fill.pixel_values(case)), next(iter(expected.values())))
