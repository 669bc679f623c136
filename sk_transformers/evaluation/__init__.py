"""How good a classifier is, and what it says of other images.

options           the options of evaluations and predictions, with their defaults and rules
run               an evaluation from options to a folder of figures and plots
predictions       what a model says of every image, and the figures made of it
metrics           top-k accuracy
robustness        accuracy under common corruptions
fonts             fonts for the names of classes
plots             confusion, reliability and robustness
onnx              the same for exports to ONNX
predict_files     classes or features of image files that have no labels
prediction_table  their table, written so that a stopped run can go on
"""
