"""Whether vectors may be compared. See docs/decisions/0002-space.md."""


def same_space(space: str, other: str) -> bool:
    """Tell whether two space ids mean the same; the name before the digits is for people."""
    return space.rpartition(":")[2] == other.rpartition(":")[2]
