"""Run an exported detector in a process of its own, where this package cannot be imported; by `test_detectors.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline

repo, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)

image = Image.frombytes("RGB", (50, 40), bytes(i % 251 for i in range(3 * 50 * 40)))
processor = AutoImageProcessor.from_pretrained(repo)
inputs = processor(image, return_tensors="pt")
model = AutoModelForObjectDetection.from_pretrained(repo, **options).eval()
model.save_pretrained(work / "again")
again = AutoModelForObjectDetection.from_pretrained(work / "again", **options).eval()
with torch.no_grad():
    outputs = model(**inputs)
    tensors = {**inputs, "logits": outputs.logits, "boxes": outputs.pred_boxes, "logits_again": again(**inputs).logits}
(instances,) = model.post_process_instance_segmentation(outputs, 0.1, [(40, 50)])
tensors["masks"] = instances["masks"].to(torch.uint8)
answers = pipeline("object-detection", model=str(repo), **options)([image, image.resize((100, 80))], threshold=0.1)
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "outputs.safetensors")
(work / "report.json").write_text(json.dumps(answers))
