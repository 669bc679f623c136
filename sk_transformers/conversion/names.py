"""What others call the tensors of these networks, and what we call them: a table of rules for each code base.

A rule is a pattern and what takes its place; all rules of a table are applied, in order.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import torch

from .errors import CheckpointError

Rule = tuple[str, str | Callable[[re.Match[str]], str]]  # a pattern, and what takes its place

METAFORMER_BLOCK_RULES = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.res_scale1\.", ".mixer_residual."),
    (r"\.res_scale2\.", ".mlp_residual."),
    (r"\.mlp\.act\.", ".mlp.activation."),
    (r"\.token_mixer\.pwconv(\d)\.", r".mixer.fc\1."),
    (r"\.token_mixer\.act1\.", ".mixer.activation."),
    (r"\.token_mixer\.dwconv\.", ".mixer.depthwise."),
    (r"\.token_mixer\.proj\.", ".mixer.o_proj."),
    (r"\.token_mixer\.random_matrix$", ".mixer.matrix"),
    (r"\.token_mixer\.v\.", ".mixer.v_proj."),
    (r"\.token_mixer\.k$", ".mixer.key"),
    (r"\.token_mixer\.to_k\.", ".mixer.k."),
    (r"\.token_mixer\.", ".mixer."),
)
METAFORMER_RULES = (
    (r"^downsample_layers\.0\.conv\.", "skformer.stem.projection."),
    (r"^downsample_layers\.0\.post_norm\.", "skformer.stem.layernorm."),
    (r"^downsample_layers\.(\d+)\.conv\.", r"skformer.stages.\1.downsampling.projection."),
    (r"^downsample_layers\.(\d+)\.pre_norm\.", r"skformer.stages.\1.downsampling.layernorm."),
    (r"^stages\.(\d+)\.(\d+)\.", r"skformer.stages.\1.layers.\2."),
    (r"^norm\.", "skformer.layernorm."),
    (r"^head\.norm\.", "classifier.layernorm."),
    (r"^head\.", "classifier."),
    *METAFORMER_BLOCK_RULES,
)
TIMM_METAFORMER_RULES = (
    (r"^stem\.conv\.", "skformer.stem.projection."),
    (r"^stem\.norm\.", "skformer.stem.layernorm."),
    (r"^stages\.(\d+)\.downsample\.conv\.", r"skformer.stages.\1.downsampling.projection."),
    (r"^stages\.(\d+)\.downsample\.norm\.", r"skformer.stages.\1.downsampling.layernorm."),
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"skformer.stages.\1.layers.\2."),
    (r"^head\.norm\.", "skformer.layernorm."),
    (r"^head\.fc\.norm\.", "classifier.layernorm."),
    (r"^head\.fc\.", "classifier."),
    *METAFORMER_BLOCK_RULES,
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
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_v\.", r"skvit.layers.\1.mixer.v_proj."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.to_", r"skvit.layers.\1.mixer."),
    (r"^transformer\.layers\.(\d+)\.0\.fn\.", r"skvit.layers.\1.mixer."),
    (r"^mlp_head\.0\.", "skvit.layernorm."),
    (r"^mlp_head\.1\.", "classifier."),
)
TIMM_VIT_RULES = (
    (r"^cls_token$", "skvit.embeddings.cls_token"),
    (r"^dist_token$", "skvit.embeddings.distillation_token"),
    (r"^reg_token$", "skvit.embeddings.register_tokens"),
    (r"^norm_pre\.", "skvit.embeddings.layernorm."),
    (r"^fc_norm\.", "skvit.layernorm."),
    (r"^attn_pool\.latent$", "skvit.pooler.probe"),
    (r"^attn_pool\.q\.", "skvit.pooler.q_proj."),
    (r"^attn_pool\.proj\.", "skvit.pooler.o_proj."),
    (r"^attn_pool\.norm\.", "skvit.pooler.layernorm."),
    (r"^attn_pool\.", "skvit.pooler."),
    (r"^pos_embed$", "skvit.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "skvit.embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"skvit.layers.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".mixer.o_proj."),
    (r"\.attn\.", ".mixer."),
    (r"\.ls1\.gamma$", ".mixer_scale.scale"),
    (r"\.ls2\.gamma$", ".mlp_scale.scale"),
    (r"^norm\.", "skvit.layernorm."),
    (r"^head\.", "classifier."),
    (r"^head_dist\.", "distillation_classifier."),
)
TIMM_CAIT_RULES = (
    (r"^cls_token$", "skcait.pooler.cls_token"),
    (r"^pos_embed$", "skcait.embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "skcait.embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"skcait.layers.\1."),
    (r"^blocks_token_only\.(\d+)\.", r"skcait.pooler.class_layers.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.gamma_1$", ".mixer_scale.scale"),
    (r"\.gamma_2$", ".mlp_scale.scale"),
    (r"\.attn\.proj_l\.", ".mixer.talking_heads.before."),
    (r"\.attn\.proj_w\.", ".mixer.talking_heads.after."),
    (r"\.attn\.proj\.", ".mixer.o_proj."),
    (r"\.attn\.(q|k|v)\.", r".mixer.\1_proj."),
    (r"\.attn\.", ".mixer."),
    (r"^norm\.", "skcait.layernorm."),
    (r"^head\.", "classifier."),
)
SMALL_CAIT_RULES = (
    (r"^pos_embedding$", "skcait.embeddings.position_embeddings"),
    (r"^cls_token$", "skcait.pooler.cls_token"),
    (r"^to_patch_embedding\.1\.", "skcait.embeddings.patch_embeddings.projection."),
    (r"^cls_transformer\.layers\.(\d+)\.0\.fn\.fn\.to_(q|k|v)\.", r"skcait.pooler.class_layers.\1.mixer.\2_proj."),
    (r"^cls_transformer\.", "skcait.pooler.class_"),
    (r"^patch_transformer\.", "skcait."),
    (r"\.0\.scale$", ".mixer_scale.scale"),
    (r"\.1\.scale$", ".mlp_scale.scale"),
    (r"\.0\.fn\.norm\.", ".layernorm_before."),
    (r"\.1\.fn\.norm\.", ".layernorm_after."),
    (r"\.1\.fn\.fn\.net\.0\.", ".mlp.fc1."),
    (r"\.1\.fn\.fn\.net\.3\.", ".mlp.fc2."),
    (r"\.0\.fn\.fn\.mix_heads_pre_attn$", ".mixer.talking_heads.before.transposed"),
    (r"\.0\.fn\.fn\.mix_heads_post_attn$", ".mixer.talking_heads.after.transposed"),
    (r"\.0\.fn\.fn\.to_out\.0\.", ".mixer.o_proj."),
    (r"\.0\.fn\.fn\.to_(q|v)\.", r".mixer.\1_proj."),
    (r"\.0\.fn\.fn\.to_", ".mixer."),
    (r"\.0\.fn\.fn\.k$", ".mixer.key"),
    (r"^mlp_head\.0\.", "skcait.layernorm."),
    (r"^mlp_head\.1\.", "classifier."),
)
TRANSFORMERS_LAYER_RULES = (
    (r"^(embeddings|encoder|layers|layernorm)\.", r"skvit.\1."),  # saved without a head
    (r"\.encoder\.layer\.", ".layers."),
    (r"\.attention\.attention\.query\.", ".mixer.q_proj."),  # transformers' names before 5.23, from here on
    (r"\.attention\.attention\.key\.", ".mixer.k_proj."),
    (r"\.attention\.attention\.value\.", ".mixer.v_proj."),
    (r"\.attention\.output\.dense\.", ".mixer.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.attention\.", ".mixer."),
)
TRANSFORMERS_VIT_RULES = (
    (r"^(vit|deit|ijepa)\.", "skvit."),
    *TRANSFORMERS_LAYER_RULES,
    (r"^cls_classifier\.", "classifier."),
)
TRANSFORMERS_BEIT_RULES = (
    (r"^beit\.", "skvit."),
    (r"^(pooler|shared_position_bias)\.", r"skvit.\1."),  # saved without a head
    *TRANSFORMERS_LAYER_RULES,
    (r"\.pooler\.layernorm\.", ".layernorm."),
    (r"\.lambda_1$", ".mixer_scale.scale"),
    (r"\.lambda_2$", ".mlp_scale.scale"),
    (r"\.relative_position_bias\.relative_position_bias_table$", ".mixer.attention_bias.bias"),
    (r"^skvit\.shared_position_bias\.relative_position_bias_table$", "skvit.layers.*.mixer.attention_bias.bias"),
)
TRANSFORMERS_DINOV2_RULES = (
    (r"^(dinov2|dinov2_with_registers)\.", "skvit."),
    *TRANSFORMERS_LAYER_RULES,
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.layer_scale1\.lambda1$", ".mixer_scale.scale"),
    (r"\.layer_scale2\.lambda1$", ".mlp_scale.scale"),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.gate_fc1."),  # before 5.23
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
)
TRANSFORMERS_DINOV3_RULES = (
    (r"^embeddings\.patch_embeddings\.", "skvit.embeddings.patch_embeddings.projection."),
    (r"^(?:model\.)?layer\.", "skvit.layers."),
    (r"^norm\.", "skvit.layernorm."),
    *TRANSFORMERS_DINOV2_RULES,
    (r"(layers\.\d+\.mlp)\.up_proj\.", r"\1.fc1."),
)
TRANSFORMERS_CLIP_RULES = (  # and SigLIP's
    (r"^vision_model\.", ""),
    (r"^(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.", r"skvit.\1."),
    (r"\.embeddings\.class_embedding$", ".embeddings.cls_token"),
    (r"\.embeddings\.patch_embedding\.", ".embeddings.patch_embeddings.projection."),
    (r"\.embeddings\.position_embedding\.weight$", ".embeddings.position_embeddings"),
    (r"\.pre_layrnorm\.", ".embeddings.layernorm."),
    (r"\.encoder\.layers\.", ".layers."),
    (r"\.layer_norm1\.", ".layernorm_before."),
    (r"\.layer_norm2\.", ".layernorm_after."),
    (r"\.self_attn\.out_proj\.", ".mixer.o_proj."),
    (r"\.self_attn\.", ".mixer."),
    (r"\.post_layernorm\.", ".layernorm."),
    (r"\.head\.attention\.in_proj_(weight|bias)$", r".pooler.qkv.\1"),
    (r"\.head\.attention\.out_proj\.", ".pooler.o_proj."),
    (r"\.head\.", ".pooler."),
)
SWIN_RULES = (  # transformers' and, below, timm's
    (r"\.(?:attention|attn)(?:\.relative_position_bias)?\.relative_position_bias_table$", ".mixer.attention_bias.bias"),
    (r"\.downsampling\.reduction\.", ".downsampling.by_columns.projection."),
    (r"\.downsampling\.norm\.", ".downsampling.by_columns.norm_before."),
)
TRANSFORMERS_SWIN_RULES = (
    (r"^(embeddings|encoder|layernorm)\.", r"swin.\1."),  # saved without a head
    (r"^swin\.embeddings\.patch_embeddings\.", "skswin.stem."),
    (r"^swin\.embeddings\.norm\.", "skswin.stem.norm_after."),
    (r"^swin\.layernorm\.", "skswin.layernorm."),
    (r"^swin\.encoder\.layers\.(\d+)\.blocks\.", r"skswin.stages.\1.layers."),
    # There a stage ends with what the next one starts with here.
    (r"^swin\.encoder\.layers\.(\d+)\.downsample\.", lambda name: f"skswin.stages.{int(name[1]) + 1}.downsampling."),
    *SWIN_RULES,
    (r"\.attention\.", ".mixer."),
)
TIMM_SWIN_RULES = (
    (r"^patch_embed\.proj\.", "skswin.stem.projection."),
    (r"^patch_embed\.norm\.", "skswin.stem.norm_after."),
    (r"^layers\.(\d+)\.blocks\.", r"skswin.stages.\1.layers."),
    (r"^layers\.(\d+)\.downsample\.", r"skswin.stages.\1.downsampling."),
    (r"^norm\.", "skswin.layernorm."),
    (r"^head\.fc\.", "classifier."),
    *SWIN_RULES,
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".mixer.o_proj."),
    (r"\.attn\.", ".mixer."),
)
SMALL_SWIN_RULES = (
    (r"^mlp_head\.0\.", "skswin.layernorm."),
    (r"^mlp_head\.1\.", "classifier."),
    (r"^stage1\.patch_partition\.linear\.", "skswin.stem.projection."),
    (
        r"^stage(\d)\.patch_partition\.linear\.",
        lambda name: f"skswin.stages.{int(name[1]) - 1}.downsampling.projection.",
    ),
    (  # layers go by pairs, of which the second is shifted
        r"^stage(\d)\.layers\.(\d+)\.(\d)\.",
        lambda name: f"skswin.stages.{int(name[1]) - 1}.layers.{2 * int(name[2]) + int(name[3])}.",
    ),
    (r"\.attention_block\.fn\.norm\.", ".layernorm_before."),
    (r"\.mlp_block\.fn\.norm\.", ".layernorm_after."),
    (r"\.mlp_block\.fn\.fn\.net\.0\.", ".mlp.fc1."),
    (r"\.mlp_block\.fn\.fn\.net\.2\.", ".mlp.fc2."),
    (r"\.attention_block\.fn\.fn\.to_out\.", ".mixer.o_proj."),
    (r"\.attention_block\.fn\.fn\.pos_embedding$", ".mixer.attention_bias.shared_table"),
    (r"\.attention_block\.fn\.fn\.k$", ".mixer.window_keys"),
    (r"\.attention_block\.fn\.fn\.k\.", ".mixer.k."),
    (r"\.attention_block\.fn\.fn\.to_", ".mixer."),
)
CVT_CONVOLUTIONS = r".mixer.convolutions.\1"
TRANSFORMERS_CVT_RULES = (
    (r"^encoder\.", "cvt.encoder."),  # saved without a head
    (r"^layernorm\.", "skcvt.layernorm."),
    (r"^cvt\.encoder\.stages\.0\.embedding\.", "skcvt.stem."),
    (r"^cvt\.encoder\.stages\.(\d+)\.embedding\.", r"skcvt.stages.\1.downsampling."),
    (r"^cvt\.encoder\.stages\.(\d+)\.cls_token$", r"skcvt.stages.\1.class_token.cls_token"),
    (r"^cvt\.encoder\.stages\.", "skcvt.stages."),
    (r"\.convolution_embeddings\.normalization\.", ".layernorm."),
    (r"\.convolution_embeddings\.", "."),
    (r"\.attention\.attention\.convolution_projection_(q|k|v)\w+\.convolution_projection\.", CVT_CONVOLUTIONS + "."),
    (r"\.([qkv])\.convolution\.", r".\1.depthwise."),
    (r"\.([qkv])\.normalization\.", r".\1.batchnorm."),
    (r"\.attention\.attention\.projection_(q|k|v)\w+\.", r".mixer.\1_proj."),
    (r"\.attention\.output\.dense\.", ".mixer.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
CVT_RULES = (
    (r"^stage0\.patch_embed\.", "skcvt.stem."),
    (r"^stage(\d+)\.patch_embed\.", r"skcvt.stages.\1.downsampling."),
    (r"^stage(\d+)\.cls_token$", r"skcvt.stages.\1.class_token.cls_token"),
    (r"^stage(\d+)\.blocks\.(\d+)\.", r"skcvt.stages.\1.layers.\2."),
    (r"\.(stem|downsampling)\.proj\.", r".\1.projection."),
    (r"\.(stem|downsampling)\.norm\.", r".\1.layernorm."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.conv_proj_(q|k|v)\.conv\.", CVT_CONVOLUTIONS + ".depthwise."),
    (r"\.attn\.conv_proj_(q|k|v)\.bn\.", CVT_CONVOLUTIONS + ".batchnorm."),
    (r"\.attn\.proj_(q|k|v)\.", r".mixer.\1_proj."),
    (r"\.attn\.proj\.", ".mixer.o_proj."),
    (r"\.attn\.k1?\.", ".mixer.k."),
    (r"\.attn\.k2$", ".mixer.class_key"),
    (r"\.attn\.k$", ".mixer.key"),
    (r"^norm\.", "skcvt.layernorm."),
    (r"^head\.", "classifier."),
)


@dataclass(frozen=True)
class CodeBase:
    """Whose names a checkpoint carries.

    Args:
        title: what to call it in print.
        signature: names that together no other code base gives.
        rules: from its names to ours.
        settings: fields of the configuration that its code fixes and no tensor shows.
    """

    title: str
    signature: tuple[str, ...]
    rules: tuple[Rule, ...]
    settings: dict[str, Any] = field(default_factory=dict)


METAFORMER = CodeBase(
    "MetaFormer (sail-sg), with static keys or without",
    ("downsample_layers.0.conv.weight", "stages.0.0.norm1.weight"),
    METAFORMER_RULES,
)
TIMM_METAFORMER = CodeBase(
    "timm's MetaFormer",
    ("stem.conv.weight", "stages.0.blocks.0.norm1.weight"),
    TIMM_METAFORMER_RULES,
    {"head_layer_norm_eps": 1e-6},
)
SMALL_VIT = CodeBase(
    "vit-pytorch's ViT for small data sets, with static keys or without",
    ("to_patch_embedding.to_patch_tokens.1.weight", "transformer.layers.0.0.norm.weight"),
    SMALL_VIT_RULES,
    {"layer_norm_eps": 1e-5},
)
TIMM_VIT = CodeBase(
    "timm's VisionTransformer",
    ("patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight"),
    TIMM_VIT_RULES,
    {"layer_norm_eps": 1e-6},
)
SMALL_CAIT = CodeBase(
    "vit-pytorch's CaiT, with static keys or without",
    ("to_patch_embedding.1.weight", "patch_transformer.layers.0.0.fn.norm.weight"),
    SMALL_CAIT_RULES,
    {"normalize_patches": False, "layer_norm_eps": 1e-5},
)
TIMM_CAIT = CodeBase(
    "timm's Cait",
    ("patch_embed.proj.weight", "pos_embed", "blocks_token_only.0.attn.q.weight"),
    TIMM_CAIT_RULES,
    {"layer_norm_eps": 1e-6},
)
SMALL_SWIN = CodeBase(
    "swin-transformer-pytorch, with static keys or without",
    ("stage1.patch_partition.linear.weight", "stage1.layers.0.0.attention_block.fn.norm.weight"),
    SMALL_SWIN_RULES,
    {"final_norm": "pooled", "shift_lone_window": True, "layer_norm_eps": 1e-5},
)
TIMM_SWIN = CodeBase(
    "timm's SwinTransformer",
    ("patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table", "head.fc.weight"),
    TIMM_SWIN_RULES,
    {"layer_norm_eps": 1e-5},
)
CVT = CodeBase(
    "CvT (microsoft), with static keys or without",
    ("stage0.patch_embed.proj.weight", "stage0.blocks.0.attn.conv_proj_v.conv.weight"),
    CVT_RULES,
    {"logit_scale": "width", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
)
# Without a signature: a file of its tensors alone tells neither the heads nor the epsilon, its folder does.
TRANSFORMERS_VIT = CodeBase("transformers' ViT", (), TRANSFORMERS_VIT_RULES)
TRANSFORMERS_BEIT = CodeBase("transformers' BEiT", (), TRANSFORMERS_BEIT_RULES)
TRANSFORMERS_MAE = CodeBase("transformers' MAE", (), TRANSFORMERS_VIT_RULES)
TRANSFORMERS_SWIN = CodeBase("transformers' Swin", (), TRANSFORMERS_SWIN_RULES)
TRANSFORMERS_CVT = CodeBase("transformers' CvT", (), TRANSFORMERS_CVT_RULES)
TRANSFORMERS_DINOV2 = CodeBase("transformers' DINOv2", (), TRANSFORMERS_DINOV2_RULES)
TRANSFORMERS_DINOV3 = CodeBase("transformers' DINOv3", (), TRANSFORMERS_DINOV3_RULES)
TRANSFORMERS_CLIP = CodeBase("transformers' CLIP", (), TRANSFORMERS_CLIP_RULES)
TRANSFORMERS_SIGLIP = CodeBase("transformers' SigLIP", (), TRANSFORMERS_CLIP_RULES)
RECOGNIZED = (  # the first that fits; a CaiT has the names of a ViT besides
    METAFORMER, TIMM_METAFORMER, SMALL_VIT, SMALL_CAIT, TIMM_CAIT, TIMM_VIT, SMALL_SWIN, TIMM_SWIN, CVT,
)  # fmt: skip

TIMM_MIXERS = {"SepConv": "separable_conv", "Attention": "attention", "Pooling": "pooling", "Identity": "identity"}
FUSED_PROJECTIONS = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "qv": ("q_proj", "v_proj"),
    "kv": ("k_proj", "v_proj"),
    "gate_fc1": ("gate", "fc1"),
}


def convert_state_dict(state_dict: dict[str, torch.Tensor], rules: tuple[Rule, ...]) -> dict[str, torch.Tensor]:
    """Return a checkpoint's tensors under our names: projections split, convolutions of queries read as static keys.

    Args:
        state_dict: the tensors under their authors' names.
        rules: one of the tables above.
    """
    converted = {}
    for name, tensor in state_dict.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        converted.update(_split_projection(name, _as_ours(name, tensor)))
    _share_bias(converted)
    for name in [name for name in converted if name.endswith(".transposed")]:  # from heads in its rows
        converted[name.replace(".transposed", ".weight")] = converted.pop(name).T
    for name in [name for name in converted if name.endswith(".attention_bias.shared_table")]:
        # A number for each distance of a key from its query, and here of a query from its key.
        converted[name.replace("shared_table", "bias")] = converted.pop(name).flip(0, 1).reshape(1, -1)
    for name in [name for name in converted if ".by_columns." in name]:  # then by rows and channels; here the other way
        patches = converted.pop(name).unflatten(-1, (2, 2, -1))
        converted[name.replace(".by_columns.", ".")] = patches.transpose(-1, -3).flatten(-3)
    for mixer in [name.removesuffix(".window_keys") for name in converted if name.endswith(".mixer.window_keys")]:
        converted[f"{mixer}.key"] = _window_keys_as_map(converted.pop(f"{mixer}.window_keys"), mixer)
    for mlp in [name.removesuffix(".fc2.weight") for name in converted if name.endswith(".mlp.fc2.weight")]:
        _split_packed_gate(converted, mlp)
    for mixer in [name.removesuffix(".k.weight") for name in converted if name.endswith(".mixer.k.weight")]:
        if not (mixer.startswith("skswin.") and _read_as_convolved_key(converted, mixer)):
            _read_as_static_key(converted, mixer)
    _complete_cvt(converted)
    return converted


def _complete_cvt(tensors: dict[str, torch.Tensor]) -> None:
    """Give a CvT what the static keys' released code leaves out.

    Its batch norms are kept without their counts of batches, which are of no use after training. Its last stage has a
    single row of keys and two values, of the class token and of the one position: softmax of one logit is one, and the
    product stretches it over both, so a token gets the sum of the values. That is two equal keys, whose weights are
    halves, and values twice as large.
    """
    for name in [name for name in tensors if name.endswith(".batchnorm.running_var")]:
        count = name.replace(".running_var", ".num_batches_tracked")
        tensors.setdefault(count, torch.zeros((), dtype=torch.int64))
    class_stages = [name.removesuffix("class_token.cls_token") for name in tensors if ".class_token." in name]
    for key in [name for name in tensors if name.endswith(".mixer.key") and name.startswith(tuple(class_stages))]:
        if tensors[key].shape[1] == 1:
            mixer = key.removesuffix(".key")
            for name in ("key", "key_bias", "class_key"):
                if f"{mixer}.{name}" in tensors:
                    tensors[f"{mixer}.{name}"] = torch.cat([tensors[f"{mixer}.{name}"]] * 2, dim=1)
            for name in [name for name in tensors if name.startswith(f"{mixer}.v_proj.")]:
                tensors[name] = 2 * tensors[name]


def _split_packed_gate(tensors: dict[str, torch.Tensor], mlp: str) -> None:
    """Split a first layer that is twice as wide as the second: timm packs the gate there, before what is gated."""
    first, second = tensors.get(f"{mlp}.fc1.weight"), tensors[f"{mlp}.fc2.weight"]
    if first is None or first.shape[0] != 2 * second.shape[-1]:
        return
    for leaf in ("weight", "bias"):
        if f"{mlp}.fc1.{leaf}" in tensors:
            tensors[f"{mlp}.gate.{leaf}"], tensors[f"{mlp}.fc1.{leaf}"] = tensors[f"{mlp}.fc1.{leaf}"].chunk(2)


def _read_as_static_key(tensors: dict[str, torch.Tensor], mixer: str) -> None:
    """Return a grouped convolution, `(heads * positions, head_dim, 3, 3)`, as a key `(heads, positions, 9 head_dim)`.

    The key has the channels of each neighbor together.
    """
    for name in (f"{mixer}.v_proj.weight", f"{mixer}.k.bias"):
        if name not in tensors:
            raise CheckpointError(f"The checkpoint lacks {name} (our name for it), which its convolution comes with.")
    kernel = tensors.pop(f"{mixer}.k.weight")
    heads = tensors[f"{mixer}.v_proj.weight"].shape[0] // kernel.shape[1]
    if heads == 0 or kernel.shape[0] % heads:
        raise CheckpointError(
            f"{mixer} has {kernel.shape[0]} convolution outputs, which its {heads} heads of {kernel.shape[1]} do not"
            " share evenly: the checkpoint is of another network."
        )
    tensors[f"{mixer}.key"] = kernel.permute(0, 2, 3, 1).reshape(heads, kernel.shape[0] // heads, -1)
    tensors[f"{mixer}.key_bias"] = tensors.pop(f"{mixer}.k.bias").reshape(heads, -1)


def _read_as_convolved_key(tensors: dict[str, torch.Tensor], mixer: str) -> bool:
    """Take a convolution whose outputs are keys of the size of a head, each head's or one for all; False if it is not.

    Its bias, which is the same for all keys, changes no weight.
    """
    kernel, value = tensors[f"{mixer}.k.weight"], tensors.get(f"{mixer}.v_proj.weight")
    if value is None or kernel.shape[0] not in (kernel.shape[1], value.shape[0]):
        return False
    tensors[f"{mixer}.key_conv.weight"] = kernel.repeat(value.shape[0] // kernel.shape[0], 1, 1, 1)
    del tensors[f"{mixer}.k.weight"]
    tensors.pop(f"{mixer}.k.bias", None)
    return True


def _window_keys_as_map(keys: torch.Tensor, mixer: str) -> torch.Tensor:
    """Return keys of windows, `(heads, windows, positions, head_dim)`, as rows of their map, row by row."""
    windows, positions = (isqrt(count) for count in keys.shape[1:3])
    if keys.shape[1:3] != (windows**2, positions**2):
        raise CheckpointError(
            f"{mixer} has keys for {keys.shape[1]} windows of {keys.shape[2]} positions, expected squares of both."
        )
    maps = keys.unflatten(2, (positions, positions)).unflatten(1, (windows, windows)).transpose(2, 3)
    return maps.flatten(1, 4)


def _share_bias(tensors: dict[str, torch.Tensor]) -> None:
    """Give every layer its own copy of a bias of the logits that all layers share, on top of one that it has."""
    shared = tensors.pop("skvit.layers.*.mixer.attention_bias.bias", None)
    if shared is None:
        return
    layers = [name.removesuffix(".mixer.v_proj.weight") for name in tensors if name.endswith(".mixer.v_proj.weight")]
    for name in [f"{layer}.mixer.attention_bias.bias" for layer in layers]:
        tensors[name] = tensors[name] + shared if name in tensors else shared.clone()


def _as_ours(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return tokens as `(1, tokens, hidden_size)` and tables of distances with the heads first, as we have them."""
    if name.endswith((".cls_token", ".position_embeddings")) and tensor.dim() < 3:
        return tensor.reshape(1, -1, tensor.shape[-1])
    if name == "skswin.stem.projection.weight":
        return tensor.flatten(1)
    if name == "skcait.embeddings.patch_embeddings.projection.weight" and tensor.dim() == 2:
        return _as_convolution(tensor)
    if name.endswith("_scale.scale"):
        return tensor.flatten()
    return tensor.T if name.endswith(".attention_bias.bias") else tensor


def _as_convolution(weight: torch.Tensor) -> torch.Tensor:
    """Return a linear map of patches, their rows, columns and channels in this order, as that of a convolution."""
    side = isqrt(weight.shape[1] // 3)
    if weight.shape[1] != 3 * side**2:
        raise CheckpointError(f"Patches of {weight.shape[1]} numbers are not square patches of 3 channels.")
    return weight.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2)


def _split_projection(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    prefix, _, leaf = name.rpartition(".")
    parent, _, module = prefix.rpartition(".")
    if module in FUSED_PROJECTIONS:
        parts = FUSED_PROJECTIONS[module]
        return {f"{parent}.{part}.{leaf}": chunk for part, chunk in zip(parts, tensor.chunk(len(parts)))}
    if leaf == "temperature":
        tensor = tensor.reshape(1)  # a scalar parameter cannot be sharded, so ours has one element
    elif re.fullmatch(r"fc\d", module) and tensor.shape[2:] == (1, 1):
        tensor = tensor.flatten(1)  # a 1x1 convolution is a linear layer
    return {name: tensor}
