"""Importing the package is quick, and registers the models whatever is imported first."""

import subprocess
import sys

import pytest

ORDERS = [
    "import sk_transformers; from transformers import AutoConfig",
    "import sk_transformers; from transformers import AutoModel",
    "import sk_transformers; from transformers import AutoImageProcessor",
    "import sk_transformers; from transformers import ProcessorMixin",
    "import sk_transformers; from transformers import AutoProcessor",
    "import sk_transformers; from transformers import pipeline",
    "from transformers import AutoConfig; import sk_transformers",
    "from transformers import PreTrainedModel, AutoModel; import sk_transformers",
    "import sk_transformers; sk_transformers.SKViTModel",
    "import sk_transformers; sk_transformers.StaticKeyAttention",
    "import sk_transformers.models.modeling_skformer",
    "import sk_transformers; import transformers.models.vit.modeling_vit",
    "import sk_transformers.registration",
]
USE = """
from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification
config = AutoConfig.for_model("skvit", hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
for auto in (AutoModel, AutoModelForImageClassification, AutoBackbone):
    model = auto.from_config(config)
    assert type(model)._auto_class == auto.__name__, type(model)
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_the_models(order):
    done = run(order + USE)
    assert done.returncode == 0, done.stderr


def test_import_and_names_need_no_torch():
    done = run(
        "import sys, sk_transformers; sk_transformers.list_models();"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    import sk_transformers

    assert all(getattr(sk_transformers, name) is not None for name in sk_transformers.__all__)
    with pytest.raises(AttributeError, match="no attribute 'SKViT'"):
        sk_transformers.SKViT  # noqa: B018
