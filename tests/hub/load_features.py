"""Load a repo folder without a classifier in a process of its own, where this package cannot be imported.

Run by `tests/conversion/test_features.py`.
"""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel, pipeline

repo, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)

image = Image.frombytes("RGB", (90, 70), bytes(i % 251 for i in range(3 * 90 * 70)))
pixel_values = AutoImageProcessor.from_pretrained(repo)(image, return_tensors="pt").pixel_values
config = AutoConfig.from_pretrained(repo, **options)
model, loading = AutoModel.from_pretrained(repo, output_loading_info=True, **options)
backbone = AutoBackbone.from_config(config, **options).eval()
embed = pipeline("image-feature-extraction", model=str(repo), **options)
with torch.no_grad():
    outputs = model.eval()(pixel_values.to(model.dtype))
    feature_map = backbone(pixel_values).feature_maps[-1]
tensors = {
    "pixel_values": pixel_values,
    "last_hidden_state": outputs.last_hidden_state,
    "pooler_output": outputs.pooler_output,
    "of_pipeline": torch.tensor(embed(image)),
    "feature_map": feature_map,
}
save_file(
    {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
    work / "outputs.safetensors",
)
report = {
    "not_loaded": [*loading["missing_keys"], *loading["unexpected_keys"]],
    "modules": sorted({type(m).__module__.split(".")[0] for m in (model, backbone)}),
}
(work / "report.json").write_text(json.dumps(report))
