"""Images for training and evaluation.

options       what a command line says of data
sources       data sets by name: built in, folders, the Hub
decoding      image files as RGB of 8 bits, the same for all that read them
loaders       batches of a training run, which go on exactly after a stop, and of an evaluation
transforms    what an image goes through, and Mixup
corruptions   the common corruptions of images
seeds         the random state of a sample, a step and an epoch
drawn_digits  pictures of digits that anybody may show
"""
