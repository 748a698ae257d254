"""ONNX graphs: cost, evaluation, passes, quantization. No torch."""
