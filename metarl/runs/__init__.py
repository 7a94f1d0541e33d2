"""A run: its experiment, folder, checkpoints, logs and resumption."""
