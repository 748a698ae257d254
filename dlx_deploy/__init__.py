"""dlx-deploy: from a PyTorch model to a verified inference package for an edge device."""

__version__ = "0.1.0"
