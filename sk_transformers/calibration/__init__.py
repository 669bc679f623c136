"""Static keys for a Vision Transformer or a Swin that is already trained.

options       what a command line says of layers, fits and distillation
source        the network that is calibrated, converted first if it is another library's
images        which images calibrate and which measure
layerwise     a network run layer by layer on images that are kept as tokens
statistics    sums over images, which add up over batches and processes
closed_forms  keys and maps as functions of those sums
candidates    what may take the place of attention, and its fit to a layer's output
study         layers fitted one after the other, and kept in a work folder
damage        how far a network is from the untouched one
costs         multiply-adds, parameters and measured time
selection     which layers: by hand, or by the damage for what is saved
distill       training end to end with the loop of `training`
report        figures, picture and card
run           all of it, from the options to a repo folder
"""
