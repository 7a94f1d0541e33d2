"""Advantages, surrogate losses and the optimizers that minimize them."""
