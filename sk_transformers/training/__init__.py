"""Training: from options to a repo folder that is ready to push.

`loop.train(TrainOptions(ModelOptions("skvit-nano-patch4-32"), DataOptions("digits")))` is a whole run.

options       the options in typed groups, with their defaults and rules
command_line  the same from `sk-transformers train`, and from recipes
setup         data, model, optimizer and loaders of a run, prepared for its processes and devices
loop          the steps, evaluations and checkpoints, to the last one
objective     the loss: soft and hard labels, and the distance to a teacher
optimization  parameter groups, optimizer and learning rate
trainable     a frozen backbone, low-rank adapters
checkpoints   what is saved, so that a resumed run goes on with the very next batch
signals       runs that are stopped, or lose a process
results       what a finished run leaves: figures, curves, the repo folder
run_record    the record in metrics.json, and the card made from it
curves        the run as a picture
trackers      TensorBoard, Weights & Biases, Trackio
display       what is said on the terminal
"""
