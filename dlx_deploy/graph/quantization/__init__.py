"""Precision written into ONNX graphs, as data: calibrate → plan → place → write (docs/adding-a-quantizer.md)."""
