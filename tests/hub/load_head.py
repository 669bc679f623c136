"""Run a head of transformers over an exported backbone where this package cannot be imported; by `test_heads.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForObjectDetection, AutoModelForUniversalSegmentation, pipeline

repo, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)

model_type = json.loads((repo / "config.json").read_text())["model_type"]
task = {"detr": "object-detection", "mask2former": "image-segmentation"}[model_type]
auto_class = AutoModelForObjectDetection if task == "object-detection" else AutoModelForUniversalSegmentation
image = Image.frombytes("RGB", (50, 40), bytes(i % 251 for i in range(3 * 50 * 40)))
pixel_values = AutoImageProcessor.from_pretrained(repo)(image, return_tensors="pt").pixel_values
model = auto_class.from_pretrained(repo, **options).eval()
model.save_pretrained(work / "again")
again = auto_class.from_pretrained(work / "again", **options).eval()
name = "logits" if task == "object-detection" else "masks_queries_logits"
with torch.no_grad():
    tensors = {"pixel_values": pixel_values, "output": model(pixel_values)[name], "again": again(pixel_values)[name]}
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "outputs.safetensors")
answers = pipeline(task, model=str(repo), **options)(image)
(work / "report.json").write_text(json.dumps({"answers": len(answers), "class": type(model).__name__}))
