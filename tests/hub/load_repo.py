"""Load a repo folder in a process of its own, where this package cannot be imported; run by `test_export.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    pipeline,
)
from transformers.dynamic_module_utils import get_class_from_dynamic_module

repo, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)

config = AutoConfig.from_pretrained(repo, **options)
processor = AutoImageProcessor.from_pretrained(repo)
size = config.image_size
image = Image.frombytes("RGB", (size, size), bytes(i % 251 for i in range(3 * size * size)))
pixel_values = processor(image, return_tensors="pt").pixel_values

model = AutoModelForImageClassification.from_pretrained(repo, **options).eval()
model.save_pretrained(work / "again")
processor.save_pretrained(work / "again")
again = AutoModelForImageClassification.from_pretrained(work / "again", **options).eval()
base = AutoModel.from_pretrained(repo, **options).eval()
base_again = AutoModel.from_pretrained(work / "again", **options)
backbones = []
if "AutoBackbone" in config.auto_map:
    backbone_class = get_class_from_dynamic_module(config.auto_map["AutoBackbone"], repo)
    backbones = [AutoBackbone.from_config(config, **options).eval(), backbone_class.from_pretrained(repo).eval()]

with torch.no_grad():
    outputs = {
        "logits": model(pixel_values).logits,
        "logits_again": again(pixel_values).logits,
        "pooler_output": base(pixel_values).pooler_output,
        "pixel_values": pixel_values,
    }
for backbone in backbones:
    outputs["feature_map"] = backbone(pixel_values).feature_maps[-1].detach()
save_file({name: tensor.contiguous() for name, tensor in outputs.items()}, work / "outputs.safetensors")
classify = pipeline("image-classification", model=str(repo), **options)
embed = pipeline("image-feature-extraction", model=str(repo), **options)
report = {
    "transformers": transformers.__version__,
    "labels": [answer["label"] for answer in classify(image, top_k=3)],
    "features": len(embed(image)[0]),
    "fresh_in_backbone": [
        key
        for backbone in backbones[1:]
        for key, tensor in backbone.state_dict().items()
        if key not in model.state_dict() or not torch.equal(tensor, model.state_dict()[key])
    ],
    "modules": sorted({type(m).__module__.split(".")[0] for m in (model, again, base, base_again, *backbones)}),
}
(work / "report.json").write_text(json.dumps(report))
