"""What tests share, and none of which is a test.

small_models   the smallest networks that still have every part
networks       networks with strong random weights, and their tensors under other people's names
image_files    folders of images
browser        Chromium
hub_server     a Hub on the loopback, which fails when a test tells it to
training       runs of training that tests of several files need
fsdp_run, killed_run   programs that tests start: a run under FSDP, and a run that gets a signal
"""
