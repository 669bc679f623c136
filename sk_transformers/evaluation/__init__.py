"""How good a classifier is.

options      the options of an evaluation, with their defaults and rules
run          an evaluation from options to a folder of figures and plots
predictions  what a model says of every image, and the figures made of it
metrics      top-k accuracy
robustness   accuracy under common corruptions
plots        confusion, reliability and robustness
onnx         the same for exports to ONNX
"""
