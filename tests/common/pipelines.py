"""What the pipelines of images must do, in place of transformers' tests of them, which need files of the Hub."""

import numpy as np
from PIL import Image
from transformers import ImageClassificationPipeline, ImageFeatureExtractionPipeline, Pipeline


def draw_images() -> list[Image.Image]:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return [Image.fromarray(pixels).convert(mode) for mode in ("RGB", "L", "RGBA")]


class ImageClassificationPipelineTests:
    def get_test_pipeline(self, model, tokenizer=None, image_processor=None, dtype="float32", **_):
        pipeline = ImageClassificationPipeline(model=model, image_processor=image_processor, dtype=dtype, top_k=2)
        return pipeline, draw_images()

    def run_pipeline_test(self, pipeline: Pipeline, examples: list[Image.Image]) -> None:
        answers = pipeline(examples)
        assert answers[0] == pipeline(examples[0])
        for answer in answers:
            assert [set(guess) for guess in answer] == [{"label", "score"}] * 2
            assert 1 >= answer[0]["score"] >= answer[1]["score"] >= 0


class ImageFeatureExtractionPipelineTests:
    def get_test_pipeline(self, model, tokenizer=None, image_processor=None, dtype="float32", **_):
        pipeline = ImageFeatureExtractionPipeline(model=model, image_processor=image_processor, dtype=dtype)
        return pipeline, draw_images()

    def run_pipeline_test(self, pipeline: Pipeline, examples: list[Image.Image]) -> None:
        for image in examples:
            features = pipeline(image, return_tensors=True)
            assert features.shape[0] == 1
            assert features.isfinite().all()
