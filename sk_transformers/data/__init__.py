"""Images for training and evaluation.

options         what a command line says of data
listing         the files of a folder: which are images, and what is left out
folders         which folders are splits and which are classes
tables          labels in tables beside images
labels          labels as numbers of classes, and how images are held out by class
multi_label     the same where an image has several
parquet         the parquet files of a folder
builtin         data sets that need no download
fingerprint     what a run's data is known by
sources         data sets by name: built in, folders, the Hub
splits          splits by name, and the rows of one that can be used
image_data      training and validation images as loading leaves them
labeled         images with labels, of whatever the options name
unlabeled       images whose labels do not matter
masks           pictures that hold a class for each pixel
mask_folders    folders of images and masks
segmentation    images with masks, of whatever the options name
decoding        image files as RGB of 8 bits, the same for all that read them
loaders         batches of a training run, which go on exactly after a stop, and of an evaluation
class_names     the names of classes, as --classes gives them
coco            objects in COCO's JSON
voc             objects in Pascal VOC's XML
listed_objects  objects as every source gives them
object_folders  folders of images and objects
object_columns  objects in a column of parquet or the Hub
objects         objects, read with their images
detection       images with objects, of whatever the options name
problems        what an image's target is, by --problem_type
balance         weights of classes of unlike sizes
transforms      what an image goes through, alone or with its target, and Mixup
corruptions     the common corruptions of images
seeds           the random state of a sample, a step and an epoch
drawn_digits    pictures of digits that anybody may show
"""
