"""From a model in memory to a repo on the Hub."""

from .card import create_card
from .export import export

__all__ = ["create_card", "export"]
