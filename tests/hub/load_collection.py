"""Use all networks of a collection as a stranger does, without this package; run by `test_push_all.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from huggingface_hub import get_collection, hf_hub_download, list_collections
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, pipeline

owner, work = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)
(slug,) = [collection.slug for collection in list_collections(owner=owner, token=False)]
report = {}
for item in get_collection(slug, token=False).items:
    if item.item_type != "model":
        continue
    options = {"trust_remote_code": True, "token": False}
    model = AutoModel.from_pretrained(item.item_id, **options).eval()
    classify = pipeline("image-classification", model=item.item_id, **options)
    image = Image.open(work / "image.png")
    processor = AutoImageProcessor.from_pretrained(item.item_id, token=False)
    pixel_values = processor(image, return_tensors="np").pixel_values
    session = onnxruntime.InferenceSession(hf_hub_download(item.item_id, "onnx/model_quantized.onnx", token=False))
    logits = session.run(None, {"pixel_values": pixel_values})[0][0]
    with torch.no_grad():
        features = model(torch.tensor(pixel_values).to(model.dtype)).pooler_output
    report[item.item_id] = {
        "class": type(model).__name__,
        "features": list(features.shape),
        "answers": classify(image, top_k=3),
        "onnx": model.config.id2label[int(np.argmax(logits))],
    }
(work / "report.json").write_text(json.dumps(report))
