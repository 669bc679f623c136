"""What the scripts share: data, metrics, checkpoints and the training loop."""
