"""TensorRT on the device: builds the package's ONNX where it runs, proves its precision, caches and executes it.

Torch-free, Python 3.8; ``tensorrt`` or ``tensorrt_rtx`` and cuda-python are imported only when they are needed.
"""
