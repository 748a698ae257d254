"""Passes over ONNX graphs, one a file: ``base`` says what a pass is and runs them."""
