"""A mean that forgets: how the engine knows its own speed."""


class RunningMean:
    """Exponentially weighted mean of positive values, the newest with `weight`; 0 before any."""

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self.value = 0.0

    def note(self, value: float) -> None:
        """Take one more value in."""
        self.value += (self._weight if self.value else 1.0) * (value - self.value)
