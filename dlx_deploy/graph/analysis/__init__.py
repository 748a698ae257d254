"""What can be read off an ONNX graph without running it: what it costs, and which weights are 2:4 sparse; no torch."""
