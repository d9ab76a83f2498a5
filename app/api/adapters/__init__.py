"""The contracts of other programs that this service can meet, by the name of their setting."""

from app.api.adapters import weaviate
from app.api.adapters.adapter import Adapter

ADAPTERS: dict[str, Adapter] = {
    "weaviate": weaviate.ADAPTER,
}
