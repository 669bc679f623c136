"""Other people's checkpoints as ours: tensors renamed and reshaped, never changed.

reading         a source: a file, or with from_timm and from_transformers a network of theirs
checkpoint      what is known of it then
names           its tensors under our names
configuration   the configuration, read off names and shapes
checking        every tensor used, and the same outputs
labels, license      what goes with the weights
"""

from .convert import Conversion, convert
from .errors import CheckpointError
from .names import METAFORMER_RULES, SMALL_VIT_RULES, convert_state_dict

__all__ = [
    "METAFORMER_RULES",
    "SMALL_VIT_RULES",
    "CheckpointError",
    "Conversion",
    "convert",
    "convert_state_dict",
]
