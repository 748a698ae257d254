"""What runs a graph: ONNX Runtime in its ways, and the choice between all that can."""
