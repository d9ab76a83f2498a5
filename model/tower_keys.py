"""How the files of checkpoints name a tower's tensors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from model.errors import CheckpointError


@dataclass(frozen=True)
class TowerKeys:
    """The keys of one tower: nested under a name, perhaps deep in a larger model, else flat."""

    kind: str
    names: tuple[str, ...]
    """Where it is nested: the first that there is."""
    flat: tuple[str, ...]
    """How flat keys of this tower begin."""
    beside: tuple[str, ...]
    """How keys begin that may stand beside flat ones."""

    def match(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the file's key of each tensor of the tower, by its name inside the tower.

        Raises `CheckpointError` for more than one tower.
        """
        # A constant that some files carry.
        keys = [key for key in keys if key.rpartition(".")[2] != "position_ids"]
        nested = self._match_nested(keys)
        prefixes = sorted({match["prefix"] for match in nested})
        if len(prefixes) > 1:
            raise CheckpointError(
                f"the checkpoint holds more than one {self.kind} tower: {', '.join(prefixes)}"
            )
        if not nested:
            return {key: key for key in keys if not key.startswith(self.beside)}
        tower = {match["name"]: match.string for match in nested}
        # What stands flat beside a published tower belongs to it, and is not expected there.
        flat = self.flat if prefixes == [f"{self.names[0]}."] else ()
        return {key: key for key in keys if key.startswith(flat)} | tower

    def are_in(self, keys: Iterable[str]) -> bool:
        """Tell whether a file has such a tower."""
        keys = list(keys)
        return bool(self._match_nested(keys)) or any(key.startswith(self.flat) for key in keys)

    def prefix(self, keys: Iterable[str]) -> str:
        """Return what comes before the tower's name, and so before names beside it."""
        nested = self._match_nested(list(keys))
        return nested[0]["outer"] if nested else ""

    def _match_nested(self, keys: list[str]) -> list[re.Match[str]]:
        for name in self.names:
            nested = re.compile(rf"(?P<prefix>(?P<outer>(?:.*\.)?){name}\.)(?P<name>.+)")
            matches = [match for key in keys if (match := nested.fullmatch(key))]
            if matches:
                return matches
        return []


_BESIDE_BOTH = ("logit_scale", "logit_bias")

VISION_KEYS = TowerKeys(
    "vision",
    # As `vision_model.X` or `vision_tower.vision_model.X`, else as `vision_tower.X`, in larger
    # models that transformers has built since 5.6.
    names=("vision_model", "vision_tower"),
    flat=("embeddings.", "encoder.", "post_layernorm.", "head."),
    beside=("text_model.", *_BESIDE_BOTH),
)
TEXT_KEYS = TowerKeys(
    "text",
    names=("text_model",),
    flat=("embeddings.token_embedding.", "final_layer_norm."),  # a vision tower has none of these
    beside=("vision_model.", *_BESIDE_BOTH),
)
