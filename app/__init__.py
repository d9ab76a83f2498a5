"""The embedding service: HTTP, batching and decoding around the vision tower in model/."""
