"""Register our models with transformers' Auto classes without importing torch before its time.

Registering imports torch and transformers' model code, seconds that a caller who only wants a list of names should not
wait for. So it happens when the Auto classes are first imported; and if that is in the middle of an import of
something that our models need, at the end of that one.
"""

import sys
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from wrapt import register_post_import_hook

AUTO_CLASSES = "transformers.models.auto.configuration_auto"
NEEDED_TO_REGISTER = (
    "transformers.configuration_utils",
    "transformers.modeling_utils",
    "transformers.modeling_layers",
    "transformers.processing_utils",
    "transformers.image_processing_utils",
    "transformers.models.auto.auto_factory",
    "transformers.models.auto.feature_extraction_auto",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.video_processing_auto",
    "transformers.models.upernet.configuration_upernet",
    "transformers.models.upernet.modeling_upernet",
    *(f"sk_transformers.models.{module.name}" for module in iter_modules([str(Path(__file__).with_name("models"))])),
    "sk_transformers.registration",
)


def register_when_imported() -> None:
    """Register now if the Auto classes are imported already, else as soon as they are."""
    for name in (AUTO_CLASSES, *NEEDED_TO_REGISTER):
        register_post_import_hook(_register_if_possible, name)


def _register_if_possible(imported: ModuleType) -> None:
    needed = [name for name in (AUTO_CLASSES, *NEEDED_TO_REGISTER) if name != imported.__name__]
    if AUTO_CLASSES in sys.modules and not any(_half_imported(name) for name in needed):
        from .registration import register_auto_classes

        register_auto_classes()


def _half_imported(name: str) -> bool:
    return name in sys.modules and getattr(sys.modules[name].__spec__, "_initializing", False)
