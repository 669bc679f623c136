"""Transformers' mixins of common tests, imported from its source distribution.

The distribution carries `tests/test_*.py` and none of the folders beside them. Three modules of those folders are
imported by name: they get stand-ins here, with what the tests of image models need of them.
"""

import importlib
import json
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import transformers

from .fetch import FOLDER

REQUIRED = "SK_REQUIRE_TRANSFORMERS_TESTS"  # a variable of the environment: fail, and do not skip, without the tests
PACKAGE = "transformers_tests"
STAND_INS = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    # Settings that every configuration takes, other than their defaults.
    "utils.test_configuration_utils": {
        "config_common_kwargs": {
            "return_dict": False,
            "output_hidden_states": True,
            "output_attentions": True,
            "dtype": "float16",
            "chunk_size_feed_forward": 5,
            "architectures": ["SKViTModel"],
            "id2label": {0: "label"},
            "label2id": {"label": "0"},
            "problem_type": "regression",
        }
    },
}
PIPELINE_TESTS = {
    "image-classification": "ImageClassificationPipelineTests",
    "image-feature-extraction": "ImageFeatureExtractionPipelineTests",
}


def import_suite() -> dict[str, types.ModuleType]:
    """Return the modules with the mixins, by name; skip the calling module where they were not fetched."""
    if not FOLDER.exists():
        reason = f"{FOLDER} is missing: run python -m tests.common.fetch."
        if os.environ.get(REQUIRED):
            raise FileNotFoundError(reason)
        pytest.skip(reason, allow_module_level=True)
    add_module(PACKAGE, {"__path__": [str(FOLDER / "tests")]})
    for name, attributes in STAND_INS.items():
        add_module(f"{PACKAGE}.{name.partition('.')[0]}", {"__path__": []})
        add_module(f"{PACKAGE}.{name}", attributes)
    names = ("test_modeling_common", "test_configuration_common", "test_backbone_common", "test_pipeline_mixin")
    with tiny_models(), mock.patch("transformers.utils.direct_transformers_import", lambda path: transformers):
        suite = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in names}
    for task, name in PIPELINE_TESTS.items():
        suite["test_pipeline_mixin"].pipeline_test_mapping[task]["test"] = f"tests.common.pipelines.{name}"
    return suite


def add_module(name: str, attributes: dict) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(attributes)


@contextmanager
def tiny_models() -> Iterator[None]:
    """A list of no tiny models where the mixin of the pipelines reads it, since the real ones are on the Hub."""
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder) / "reports"
        reports.mkdir()
        (reports / "tiny_model_summary.json").write_text(json.dumps({}))
        with mock.patch.dict(os.environ, TRANSFORMERS_TINY_MODEL_PATH=folder):
            yield
