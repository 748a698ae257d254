"""What makes INT8 better than the nearest integers of whole ranges are; kept where it shows (docs/quantization.md)."""
