"""Names and projections of other code bases, by hand."""

import torch

from sk_transformers.conversion.names import TIMM_METAFORMER, TIMM_VIT, convert_state_dict


def test_a_fused_projection_is_split_in_order():
    weight, bias = torch.arange(12.0).view(6, 2), torch.arange(6.0)
    tensors = {"blocks.3.attn.qkv.weight": weight, "blocks.3.attn.qkv.bias": bias}
    converted = convert_state_dict(tensors, TIMM_VIT.rules)
    for number, projection in enumerate(("q_proj", "k_proj", "v_proj")):
        name, rows = f"skvit.layers.3.mixer.{projection}", slice(2 * number, 2 * number + 2)
        assert torch.equal(converted[f"{name}.weight"], weight[rows])
        assert torch.equal(converted[f"{name}.bias"], bias[rows])
    assert len(converted) == 6


def test_stages_and_heads_keep_their_numbers():
    names = {
        "stages.2.blocks.11.norm1.weight": "skformer.stages.2.layers.11.layernorm_before.weight",
        "stages.1.downsample.conv.weight": "skformer.stages.1.downsampling.projection.weight",
        "stages.0.blocks.0.token_mixer.pwconv2.weight": "skformer.stages.0.layers.0.mixer.fc2.weight",
        "head.norm.bias": "skformer.layernorm.bias",
        "head.fc.norm.bias": "classifier.layernorm.bias",
    }
    tensors = {name: torch.full((1,), float(number)) for number, name in enumerate(names)}
    converted = convert_state_dict(tensors, TIMM_METAFORMER.rules)
    assert {name: tensor.item() for name, tensor in converted.items()} == dict(zip(names.values(), range(5)))
