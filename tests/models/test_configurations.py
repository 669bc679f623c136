"""Wrong configurations are one clear sentence."""

import pytest

from sk_transformers import SKFormerConfig, SKViTConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_mixer": "static_keys"}, "Unknown token mixer 'static_keys': .* Did you mean 'static_key'"),
        ({"token_mixer": ["attention"] * 3}, "token_mixer has 3 values, expected 12: one for each of the layers"),
        ({"hidden_size": 100, "num_attention_heads": 3}, "hidden_size 100 cannot be split into 3 heads"),
        ({"head_dim": 32, "query_projection": False}, "12 heads of 32 are 384 channels, and hidden_size is 768"),
        ({"image_size": 100}, "image_size 100 is not a multiple of patch_size 16"),
        ({"image_size": [224]}, r"image_size is \[224\], expected a positive number of pixels or a pair"),
        ({"pooling": "max"}, "Unknown pooling 'max': expected one of 'cls', 'cls_mean', 'mean'"),
        ({"pooling": "cls_mean", "class_token": False}, "'cls_mean' reads a class token, but class_token is False"),
        ({"num_register_tokens": -1}, "num_register_tokens is -1, expected a number of at least 0"),
        ({"position_interpolation": "linear"}, "Unknown position_interpolation 'linear': expected one of 'auto'"),
        ({"position_embedding_type": "rope"}, "Unknown position_embedding_type 'rope': expected one of 'learned'"),
        ({"position_embedding_type": "rotary", "head_dim": 6}, "turn channels by fours, and head_dim is 6"),
        ({"final_norm": "cls"}, "Unknown final_norm 'cls': expected one of 'tokens', 'pooled', None"),
        ({"final_norm": "pooled", "pooling": "cls_mean"}, "final_norm='pooled' goes with every pooling but 'cls_mean'"),
        (
            {"pooling": "attention", "num_attention_heads": 5, "head_dim": 8},
            "splits hidden_size 768 into 5 heads: choose num_attention_heads that divides it",
        ),
        ({"image_size": 8, "strict_image_size": False}, "image_size 8 is not a multiple of patch_size 16"),
        (
            {"num_register_tokens": 4, "reshape_hidden_states": False},
            "expect one class token before the patches, and this network has 5 tokens there",
        ),
        ({"token_mixer": "pooling"}, "'pooling' works on the grid of patches and cannot feed a class token"),
        ({"drop_path_rate": 1.5}, "drop_path_rate is 1.5, expected a rate of at least 0 and less than 1"),
        ({"layer_scale_init_value": -1}, "layer_scale_init_value is -1, expected a number of at least 0"),
        ({"distillation_token": True, "pooling": "mean"}, "distillation_token needs a class token"),
        ({"distillation_head": True}, "distillation_head classifies the distillation token"),
        (
            {"distillation_token": True, "distillation_head": True, "pooling": "cls_mean"},
            "distillation_head goes with pooling='cls', but pooling is 'cls_mean'",
        ),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, expected a number of at least 1"),
    ],
)
def test_wrong_skvit(settings, message):
    with pytest.raises(ValueError, match=message):
        SKViTConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_mixers": ["attention"] * 3}, "token_mixers has 3 values, expected 4: one for each of the stages"),
        ({"token_mixers": ["conv"] * 4}, "Unknown token mixer 'conv'"),
        ({"depths": [1, 1]}, "depths has 2 values, expected 4"),
        ({"hidden_sizes": [64, 128, 320, 500]}, "stage 4 has 500 channels, which heads of 32 do not fill"),
        ({"head_dim": [32, 16]}, "head_dim has 2 values, expected 4"),
        ({"image_size": 31}, "image height is 31, expected a number of at least 32"),
        ({"image_size": 15, "stem_stride": 2}, "image height is 15, expected a number of at least 16"),
        ({"stem_kernel_size": 3}, "stem_kernel_size is 3, expected a number of at least 4"),
        ({"static_key_resolution": "windows"}, "Unknown static_key_resolution 'windows': .* Did you mean 'window'"),
        ({"norm": "batch"}, "Unknown norm 'batch': expected one of 'layer', 'group'"),
        ({"head_dropout": -0.1}, "head_dropout is -0.1, expected a rate"),
    ],
)
def test_wrong_skformer(settings, message):
    with pytest.raises(ValueError, match=message):
        SKFormerConfig(**settings)


@pytest.mark.parametrize("config", [SKViTConfig(image_size=[64, 32]), SKFormerConfig(head_dim=[32, 16, 32, 32])])
def test_configurations_survive_json(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert type(config).from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()


@pytest.mark.parametrize("size", [32, 33, 64, 97, 224, 225, 384, (800, 1333)])
@pytest.mark.parametrize("stem", [(7, 4, 2), (3, 2, 1), (4, 4, 0), (3, 1, 1)])
def test_grid_sizes_are_those_of_the_convolutions(size, stem):
    import torch
    from torch import nn

    maps = torch.empty(1, 1, *(size if isinstance(size, tuple) else (size, size)), device="meta")
    grids = []
    for stage in range(4):
        conv = nn.Conv2d(1, 1, *((3, 2, 1) if stage else stem), device="meta")
        maps = conv(maps)
        grids.append(tuple(maps.shape[2:]))
    config = SKFormerConfig(image_size=size, stem_kernel_size=stem[0], stem_stride=stem[1])
    assert (config.grid_sizes, config.stem_padding) == (grids, stem[2])


@pytest.mark.parametrize(("scope", "norm"), [("channel", "layer"), ("map", "group")])
def test_a_configuration_of_the_first_version_is_read(scope, norm):
    saved = {**SKFormerConfig().to_dict(), "layer_norm_scope": scope}
    del saved["norm"]
    config = SKFormerConfig.from_dict(saved)
    assert config.norm == norm and "layer_norm_scope" not in config.to_dict()
