"""The authors' networks, rebuilt from their names and seeds, against the logits of the authors' own code."""

import sys
from pathlib import Path

import pytest
import torch

from sk_transformers import (
    SKFormerConfig,
    SKFormerForImageClassification,
    SKViTConfig,
    SKViTForImageClassification,
    create_config,
)
from sk_transformers.conversion import METAFORMER_RULES, SMALL_VIT_RULES, convert_state_dict

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import fill  # noqa: E402

CONFIGS = {
    "caformer_s18": lambda: create_config("caformer-s18"),
    "stu_caformer_s18": lambda: create_config(
        "caformer-s18",
        token_mixers=["separable_conv", "separable_conv", "static_key", "static_key"],
        query_projection=False,
    ),
    "cstu_caformer_s18": lambda: create_config("cskaformer-s18"),
    "vit_small": lambda: create_config("vit-small-patch4-32"),
    "vit_small_stu": lambda: create_config("skvit-small-patch4-32"),
    "vit_small_cstu": lambda: create_config("cskvit-small-patch4-32"),
}
MODELS = {
    SKViTConfig: (SKViTForImageClassification, SMALL_VIT_RULES),
    SKFormerConfig: (SKFormerForImageClassification, METAFORMER_RULES),
}


def golden_model(name):
    case, expected = fill.load_case(name, GOLDEN)
    config = CONFIGS[name]()
    model_class, rules = MODELS[type(config)]
    model = model_class(config).eval()
    model.double().load_state_dict(convert_state_dict(fill.state_dict(case), rules))
    (logits,) = expected.values()
    return case, model, fill.pixel_values(case), logits


def relative_error(logits, expected):
    return ((logits.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_equal_the_authors(name):
    case, model, pixel_values, expected = golden_model(name)
    assert sum(p.numel() for p in model.parameters()) == case["parameters"]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model.to(dtype)
        for implementation in ("sdpa", "eager"):
            model.set_attn_implementation(implementation)
            assert relative_error(model(pixel_values.to(dtype)).logits, expected) < tolerance, implementation


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cstu_caformer_s18", "vit_small_stu"])  # every small network is compiled elsewhere
@torch.no_grad()
def test_compiled_logits_equal_the_authors(name):
    _, model, pixel_values, expected = golden_model(name)
    compiled = torch.compile(model.float(), fullgraph=True)
    assert relative_error(compiled(pixel_values.float()).logits, expected) < 1e-4
