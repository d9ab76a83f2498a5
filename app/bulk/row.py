"""What an output is made of: a row for each image, and what all its rows have in common."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from app.engine.protocol import Float32Array
from app.engine.same_space import same_space

OutputKind = Literal["pooled", "patches", "both"]

_ABOUT = ("path", "sha256", "width", "height")
COLUMNS = MappingProxyType(
    {
        "pooled": (*_ABOUT, "embedding", "error"),
        "patches": (*_ABOUT, "grid", "patches", "error"),
        "both": (*_ABOUT, "embedding", "grid", "patches", "error"),
    }
)
"""The columns of each kind of output, which are fields of `Row`."""


class BulkError(Exception):
    """The command cannot do its work; the message is one line for whoever started it."""


@dataclass(frozen=True)
class Row:
    """One image: its vectors, or why there are none.

    Width and height are those of the upright image in pixels. `embedding` is (dim,), `patches`
    (rows x columns, dim) in row-major order of `grid`. `error` is the contract's code.
    """

    path: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    grid: tuple[int, int] | None = None
    embedding: Float32Array | None = None
    patches: Float32Array | None = None
    error: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where all vectors of an output come from."""

    model: str
    revision: str | None
    space: str
    output: OutputKind
    normalized: bool
    dim: int

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Origin":
        """Read what `values` wrote; raises `KeyError` for what another program wrote."""
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def values(self) -> dict[str, Any]:
        """Return all of it by name, as JSON can hold it."""
        return asdict(self)

    def require_same(self, earlier: "Origin", path: Path) -> None:
        """Raise `BulkError` when the vectors in `path` cannot stand beside these."""
        if not same_space(self.space, earlier.space):
            raise BulkError(
                f"{path} has vectors of space {earlier.space}, these would be of {self.space}"
            )
        if self.output != earlier.output:
            raise BulkError(f"{path} was written with --output {earlier.output}, not {self.output}")
        if self.normalized != earlier.normalized:
            said = "normalised" if earlier.normalized else "not normalised"
            raise BulkError(f"{path} has vectors that are {said}, these would be otherwise")
