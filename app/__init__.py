"""The embedding service: HTTP, batching and decoding around the vision tower in model/."""

__version__ = "0.1.0"
