"""From a model in memory to a repo on the Hub.

export         a repo folder: weights, code, image processor, card
heads          the same of a head of transformers over one of our backbones
trained        a repo folder of a trained network of the zoo
onnx_export    the same network as ONNX; folding, how it computes there what no image changes
graph_runtimes those graphs in ONNX Runtime and OpenVINO
cards          the card, from a template, with a drawing of the network; completed and merged by a push

push           a folder on the Hub, in one commit: the walk through all that follows
push_all       every trained network of the zoo, a Space with the demo over them, and a collection of them all
gather         what goes there: files, plots, evaluations, examples, the completed card
preflight      whether it may be published; code_check, whether its Python files keep to themselves
remote         what is on the Hub already, and the commit that brings the rest
report         where to push, and what was done
errors         what keeps a folder from the Hub, as a sentence

fingerprint, licenses   a few numbers that tell a model from others; the licenses that the Hub knows
templates               what is copied or run, and not imported: the card, the handler, loading in isolation
"""

from .cards.card import create_card
from .export import export
from .heads import export_head
from .push import push_folder

__all__ = ["create_card", "export", "export_head", "push_folder"]
