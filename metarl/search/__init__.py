"""Hyperparameter search: successive halving of trials, each a run folder, with Optuna's samplers and journal."""
