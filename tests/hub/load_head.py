"""Run heads of transformers over exported backbones where this package cannot be imported; by `test_heads.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, pipeline

repos, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)
image = Image.frombytes("RGB", (50, 40), bytes(i % 251 for i in range(3 * 50 * 40)))
depth = ("depth-estimation", "AutoModelForDepthEstimation", "predicted_depth")
heads = {
    "detr": ("object-detection", "AutoModelForObjectDetection", "logits"),
    "mask2former": ("image-segmentation", "AutoModelForUniversalSegmentation", "masks_queries_logits"),
    "dpt": depth,
    "depth_anything": depth,
}

reports, tensors = {}, {}
for repo in repos.iterdir():
    task, auto_class, output = heads[json.loads((repo / "config.json").read_text())["model_type"]]
    auto_class = getattr(transformers, auto_class)
    pixel_values = AutoImageProcessor.from_pretrained(repo)(image, return_tensors="pt").pixel_values
    model = auto_class.from_pretrained(repo, **options).eval()
    model.save_pretrained(work / repo.name)
    again = auto_class.from_pretrained(work / repo.name, **options).eval()
    with torch.no_grad():
        tensors[f"{repo.name}.pixel_values"] = pixel_values
        for name, network in {"output": model, "again": again}.items():
            tensors[f"{repo.name}.{name}"] = network(pixel_values)[output].contiguous()
    answers = pipeline(task, model=str(repo), **options)(image)
    reports[repo.name] = {"answers": len(answers), "class": type(model).__name__}
save_file(tensors, work / "outputs.safetensors")
(work / "report.json").write_text(json.dumps(reports))
