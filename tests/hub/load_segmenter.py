"""Run an exported segmenter in a process of its own, where this package cannot be imported; by `test_segmenters.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForSemanticSegmentation, pipeline

repo, work = Path(sys.argv[1]), Path(sys.argv[2])
options = {"trust_remote_code": True}
torch.set_num_threads(1)

image = Image.frombytes("RGB", (50, 40), bytes(i % 251 for i in range(3 * 50 * 40)))
processor = AutoImageProcessor.from_pretrained(repo)
pixel_values = processor(image, return_tensors="pt").pixel_values
model = AutoModelForSemanticSegmentation.from_pretrained(repo, **options).eval()
model.save_pretrained(work / "again")
again = AutoModelForSemanticSegmentation.from_pretrained(work / "again", **options).eval()
with torch.no_grad():
    outputs = model(pixel_values)
    tensors = {"pixel_values": pixel_values, "logits": outputs.logits, "logits_again": again(pixel_values).logits}
(tensors["classes"],) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(40, 50)])
parts = pipeline("image-segmentation", model=str(repo), **options)(image)
for part in parts:
    values = torch.frombuffer(bytearray(part["mask"].convert("L").tobytes()), dtype=torch.uint8)
    tensors[f"mask of {part['label']}"] = values.reshape(part["mask"].size[::-1])
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, work / "outputs.safetensors")
(work / "report.json").write_text(json.dumps({"labels": [part["label"] for part in parts]}))
