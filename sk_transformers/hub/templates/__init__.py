"""Programs and texts that are copied or run, and not imported: handler.py, isolated_load.py, card.md."""
