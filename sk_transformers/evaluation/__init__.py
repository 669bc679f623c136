"""How good a classifier, a segmenter or a detector is, and what it says of other images.

options               the options of evaluations and predictions, with their defaults and rules
run                   an evaluation from options to a folder of figures and plots
problems              what a classifier is asked: one label an image, or several
predictions           what a model says of every image, and what a problem is
single_label          figures of one label an image
multi_label           figures of several labels an image
segmentation          pixels of each class, and mean intersection over union
detection             objects found, and average precision
metrics               top-k accuracy, and scores that count each class alike
robustness            accuracy under common corruptions
attention_quantities  entropy, interactions and rollout of attention weights
grad_cam              where a stage's map speaks for a class
patch_attack          accuracy where a patch of each image is optimized against the model
fonts                 fonts for the names of classes
plots                 confusion, classes, reliability and robustness
onnx                  the same for exports to ONNX
predict_files         classes or features of image files that have no labels
mask_files            masks of image files, as PNG
object_files          objects of image files, as COCO's JSON
overlay_style         colors of classes, and sizes of pictures, in files as on the demo's page
overlays              predictions drawn over their images
pictures              held-out images with what is right beside what is predicted
prediction_table      their table, written so that a stopped run can go on
"""
