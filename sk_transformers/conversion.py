"""Other people's checkpoints as ours: tensors renamed and reshaped, never changed."""

import re

import torch

# The static-key authors' networks carry MetaFormer's names ("MetaFormer Baselines for Vision", sail-sg) and add the
# static keys; their CIFAR networks carry vit-pytorch's. A rule is a pattern and what takes its place.
METAFORMER_RULES = (
    (r"^downsample_layers\.0\.conv\.", "skformer.stem.projection."),
    (r"^downsample_layers\.0\.post_norm\.", "skformer.stem.layernorm."),
    (r"^downsample_layers\.(\d+)\.conv\.", r"skformer.stages.\1.downsampling.projection."),
    (r"^downsample_layers\.(\d+)\.pre_norm\.", r"skformer.stages.\1.downsampling.layernorm."),
    (r"^stages\.(\d+)\.(\d+)\.", r"skformer.stages.\1.layers.\2."),
    (r"^norm\.", "skformer.layernorm."),
    (r"^head\.norm\.", "classifier.layernorm."),
    (r"^head\.fc", "classifier.fc"),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.res_scale1\.", ".mixer_residual."),
    (r"\.res_scale2\.", ".mlp_residual."),
    (r"\.mlp\.act\.", ".mlp.activation."),
    (r"\.token_mixer\.pwconv(\d)\.", r".mixer.fc\1."),
    (r"\.token_mixer\.act1\.", ".mixer.activation."),
    (r"\.token_mixer\.dwconv\.", ".mixer.depthwise."),
    (r"\.token_mixer\.proj\.", ".mixer.o_proj."),
    (r"\.token_mixer\.v\.", ".mixer.v_proj."),
    (r"\.token_mixer\.k$", ".mixer.key"),
    (r"\.token_mixer\.to_k\.", ".mixer.k."),
    (r"\.token_mixer\.", ".mixer."),
)
SMALL_VIT_RULES = (
    (r"^pos_embedding$", "skvit.embeddings.position_embeddings"),
    (r"^cls_token$", "skvit.embeddings.cls_token"),
    (r"^to_patch_embedding\.to_patch_tokens\.1\.", "skvit.embeddings.patch_embeddings.layernorm."),
    (r"^to_patch_embedding\.to_patch_tokens\.2\.", "skvit.embeddings.patch_embeddings.projection."),
    (r"^transformer\.layers\.(\d+)\.0\.norm\.", r"skvit.layers.\1.layernorm_before."),
    (r"^transformer\.layers\.(\d+)\.1\.norm\.", r"skvit.layers.\1.layernorm_after."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.0\.", r"skvit.layers.\1.mlp.fc1."),
    (r"^transformer\.layers\.(\d+)\.1\.fn\.net\.3\.", r"skvit.layers.\1.mlp.fc2."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_out\.0\.", r"skvit.layers.\1.mixer.o_proj."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.k$", r"skvit.layers.\1.mixer.key"),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.k2$", r"skvit.layers.\1.mixer.class_key"),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_", r"skvit.layers.\1.mixer."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.", r"skvit.layers.\1.mixer."),
    (r"^mlp_head\.0\.", "skvit.layernorm."),
    (r"^mlp_head\.1\.", "classifier."),
)
FUSED_PROJECTIONS = {"qkv": ("q_proj", "k_proj", "v_proj"), "qv": ("q_proj", "v_proj")}


def convert_state_dict(
    state_dict: dict[str, torch.Tensor], rules: tuple[tuple[str, str], ...]
) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors under our names: fused projections split, convolutions of queries read as static keys.

    Args:
        state_dict: the tensors under their authors' names.
        rules: `METAFORMER_RULES` or `SMALL_VIT_RULES`; all are applied, in order.
    """
    converted = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        converted.update(_split_projection(name, tensor))
    for name in [name for name in converted if name.endswith(".mixer.k.weight")]:
        mixer = name.removesuffix(".k.weight")
        kernel, bias = converted.pop(name), converted.pop(f"{mixer}.k.bias")
        heads = converted[f"{mixer}.v_proj.weight"].shape[0] // kernel.shape[1]
        converted[f"{mixer}.key"] = kernel.reshape(heads, kernel.shape[0] // heads, -1)
        converted[f"{mixer}.key_bias"] = bias.reshape(heads, -1)
    return converted


def _split_projection(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    prefix, _, leaf = name.rpartition(".")
    parent, _, module = prefix.rpartition(".")
    if module in FUSED_PROJECTIONS:
        parts = FUSED_PROJECTIONS[module]
        return {f"{parent}.{part}.{leaf}": chunk for part, chunk in zip(parts, tensor.chunk(len(parts)))}
    # A scalar parameter cannot be sharded, so ours has one element.
    return {name: tensor.reshape(1) if leaf == "temperature" else tensor}
