"""What this package measures of itself, beside other software; for maintainers, in a checkout.

commands        the command line of scripts/benchmark.py
measure         time, memory and multiply-adds of a piece of work
baselines       what networks are compared with
counts          parameters and multiply-adds of the zoo
speed           networks and mixers beside their baselines; speed_report, the tables
operators       what a pass spends its time on
scaling         time and memory against image size, batch and depth
dense           backbones for dense prediction beside their peers
resolution      resized static keys beside windows of them
runtimes        networks in turns where they are deployed: latency, throughput, size, accuracy
doors           how a network gets into each runtime
resident        the memory that it takes there
probe           a linear classifier on what networks make of images
displacement    what trained classifiers lose on shifted, enlarged and corrupted images
calibration_report  tables of calibrations of a pretrained network
trained_report  the trained networks as a table
startup         the import, and loading from a file
training_speed  training loops beside those of transformers and timm
loading         loaders of training images beside timm's and torchvision's
example_images  image files for benchmarks, the same on every machine
mixers          networks that differ in their token mixer, trained under one recipe; mixers_report, table and plot
damaged_images  what the decoder makes of damaged files
pages           the tables of the documentation, from the measured figures
"""
