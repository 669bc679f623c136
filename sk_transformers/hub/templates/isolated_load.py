"""Load a repo folder as a stranger does: in a process of its own, as remote code, without this package and the network.

Run as a program by `preflight.py`: `python -P isolated_load.py FOLDER OUTPUTS.safetensors ANSWERS.json [IMAGE ...]`.
It writes the pixel values of a picture made here and the model's outputs for it, and the answers to the images.
"""

import sys

sys.modules["sk_transformers"] = None  # pyright: ignore[reportArgumentType] (importing it now fails)

import json

import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForObjectDetection,
    AutoModelForSemanticSegmentation,
    pipeline,
)


def main(folder: str, outputs_file: str, answers_file: str, images: list[str]) -> None:
    options = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(folder, **options)
    architecture = (config.architectures or [""])[0]
    is_classifier = "ForImageClassification" in architecture
    is_segmenter = "ForSemanticSegmentation" in architecture
    is_detector = "ForObjectDetection" in architecture
    auto_class = AutoModelForImageClassification if is_classifier else AutoModel
    auto_class = AutoModelForSemanticSegmentation if is_segmenter else auto_class
    auto_class = AutoModelForObjectDetection if is_detector else auto_class
    model, loading = auto_class.from_pretrained(folder, output_loading_info=True, **options)
    wrong = [key for name in ("missing_keys", "mismatched_keys", "unexpected_keys") for key in loading[name]]
    if wrong:
        raise ValueError(f"its weights do not fit its configuration: {', '.join(map(str, wrong[:3]))}")
    processor = AutoImageProcessor.from_pretrained(folder)
    picture = Image.frombytes("RGB", (60, 40), bytes(i * 37 % 251 for i in range(60 * 40 * 3)))
    pixel_values = processor(picture, return_tensors="pt").pixel_values
    answers = []
    if images and is_classifier:
        classify = pipeline("image-classification", model=model, image_processor=processor)
        answers = [classify(image) for image in images]  # upright, as the pipeline reads files
    with torch.no_grad():
        outputs = model.float().eval()(pixel_values)  # weights in 16 bits, too: rounding would hide what differs
    output = outputs.logits if is_classifier or is_segmenter or is_detector else outputs.pooler_output
    output = output.softmax(-1)[..., :-1].amax(-1) if is_detector else output  # scores of objects
    save_file({"pixel_values": pixel_values, "output": output.contiguous()}, outputs_file)
    with open(answers_file, "w", encoding="utf-8") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    torch.set_num_threads(1)  # what is compared is then the same number
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        sys.exit(f"{type(error).__name__}: {lines[0]}")
