"""From a model in memory to a repo on the Hub.

export      a repo folder: weights, code, image processor, card
card        the card, from a template; card_drawing draws the network on it
preflight   whether a folder may be published; code_check, whether its Python files keep to themselves
push        a folder on the Hub, in one commit; card_completion and card_merge see to its card
"""

from .cards.card import create_card
from .export import export
from .push import push_folder

__all__ = ["create_card", "export", "push_folder"]
