"""Options of `sk-transformers train` as YAML, and configurations of `accelerate launch`."""
