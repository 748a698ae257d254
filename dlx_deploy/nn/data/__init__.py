"""Images and labels on disk: fingerprint, preparation, and the artifact that every later stage reads. No torch."""
