"""Packages as what other servers of models read: Triton's model repository, DeepStream's nvinfer."""
