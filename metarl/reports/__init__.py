"""Tables and figures of runs, beside published numbers and exact references."""
