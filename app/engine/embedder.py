"""The one way to load a model for the engine, whatever its family."""

from app.engine.protocol import StartError
from app.engine.towers.builder import load_embedder
from app.engine.towers.text_builder import load_text_embedder

__all__ = ["StartError", "load_embedder", "load_text_embedder"]
