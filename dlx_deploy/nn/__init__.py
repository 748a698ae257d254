"""The work on networks: data, models, training, pruning, export, quantization. The only room that may import torch."""
