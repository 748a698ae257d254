"""ONNX models that others wrote: what they are, whether they can be used, and their graph as one of ours."""
