"""Use a repo of the Hub as a stranger does, without this package; run by `test_from_the_hub.py`."""

import sys

sys.modules["sk_transformers"] = None  # importing it now fails

import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoModel, AutoModelForImageClassification, pipeline

repo_id, revision, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
options = {"revision": revision, "trust_remote_code": True}
image = Image.open(work / "image.png")

classify = pipeline("image-classification", model=repo_id, **options)
model = AutoModelForImageClassification.from_pretrained(repo_id, **options).eval()
with torch.no_grad():
    logits = model(torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)).logits
try:
    AutoModel.from_pretrained(repo_id, token=False, force_download=True, **options)
    refused = False
except OSError:
    refused = True
report = {
    "class": type(AutoModel.from_pretrained(repo_id, **options)).__name__,
    "answers": classify(image, top_k=3),
    "logits": logits[0].tolist(),
    "files": sorted(path.name for path in Path(snapshot_download(repo_id, revision=revision)).iterdir()),
    "refused_without_token": refused,
}
(work / "report.json").write_text(json.dumps(report))
