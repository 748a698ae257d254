"""Running ONNX models on this machine: what they answer, how fast, and whether its kernels can be trusted; no torch."""
