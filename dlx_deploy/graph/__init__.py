"""ONNX graphs: models and samples; running, rewriting, quantizing, analysing and checking them. No torch."""
