"""Networks as functions of a parameter dict: policies, memories, baselines, action distributions."""
