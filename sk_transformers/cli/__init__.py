"""The commands of `sk-transformers`: each module parses, calls and prints."""
