"""Policies taken away: one step as ONNX, torch.export or parameters, and a reader that needs no torch."""
