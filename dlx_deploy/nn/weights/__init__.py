"""Networks on disk: what a stage keeps of one, and the checkpoints that people bring."""
