"""What an output is made of: a row for each image or text, and what its rows have in common."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from app.engine.protocol import Float32Array, Modality
from app.engine.same_space import same_space

OutputKind = Literal["pooled", "patches", "both"]

ABOUT: Mapping[Modality, tuple[str, ...]] = MappingProxyType(
    {"image": ("path", "sha256", "width", "height"), "text": ("id", "text", "tokens", "truncated")}
)
"""What is told of each image or text that has vectors, its name first."""
COLUMNS = MappingProxyType(
    {
        "pooled": (*ABOUT["image"], "embedding", "error"),
        "patches": (*ABOUT["image"], "grid", "patches", "error"),
        "both": (*ABOUT["image"], "embedding", "grid", "patches", "error"),
    }
)
"""The columns of each kind of output of images, which are attributes of `Row`."""
TEXT_COLUMNS = (*ABOUT["text"], "embedding", "error")
"""Those of texts."""

_OF_TEXTS = ("kind", "text_space")


class BulkError(Exception):
    """The command cannot do its work; the message is one line for whoever started it."""


@dataclass(frozen=True)
class Row:
    """One image or text: its vectors, or why there are none.

    Its name is the `path` of an image, the `id` of a text. Width and height are those of the
    upright image in pixels. `embedding` is (dim,), `patches` (rows x columns, dim) in row-major
    order of `grid`. `tokens` are those of the whole text, of which the model gets a part where it
    is `truncated`. `error` is the contract's code.
    """

    name: str
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    grid: tuple[int, int] | None = None
    embedding: Float32Array | None = None
    patches: Float32Array | None = None
    error: str | None = None
    message: str | None = None
    text: str | None = None
    tokens: int | None = None
    truncated: bool | None = None

    @property
    def path(self) -> str:
        """The name of an image."""
        return self.name

    @property
    def id(self) -> str:
        """The name of a text."""
        return self.name

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Row":
        """Make a row of its columns; raises `KeyError` or `TypeError` for what are none."""
        others = dict(values)
        return cls(others.pop("path" if "path" in others else "id"), **others)


@dataclass(frozen=True)
class Origin:
    """Where all vectors of an output come from."""

    model: str
    revision: str | None
    space: str
    output: OutputKind
    normalized: bool
    dim: int
    kind: Modality = "image"
    text_space: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the rows."""
        return TEXT_COLUMNS if self.kind == "text" else COLUMNS[self.output]

    @property
    def name_column(self) -> str:
        """The column in which each row has its name."""
        return ABOUT[self.kind][0]

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Origin":
        """Read what `values` wrote; raises `KeyError` for what another program wrote."""
        of_texts = "kind" in values
        names = [field.name for field in fields(cls) if of_texts or field.name not in _OF_TEXTS]
        return cls(**{name: values[name] for name in names})

    def values(self) -> dict[str, Any]:
        """Return all of it by name, as JSON can hold it; without a kind it is images."""
        values = asdict(self)
        if self.kind == "text":
            return values
        return {name: value for name, value in values.items() if name not in _OF_TEXTS}

    def require_same(self, earlier: "Origin", path: Path) -> None:
        """Raise `BulkError` when the vectors in `path` cannot stand beside these."""
        if not same_space(self.space, earlier.space):
            raise BulkError(
                f"{path} has vectors of space {earlier.space}, these would be of {self.space}"
            )
        if self.kind != earlier.kind:
            raise BulkError(
                f"{path} has vectors of {earlier.kind}s, these would be of {self.kind}s"
            )
        if self.text_space != earlier.text_space:
            raise BulkError(
                f"{path} has vectors of text space {earlier.text_space}, these would be of"
                f" {self.text_space}"
            )
        if self.output != earlier.output:
            raise BulkError(f"{path} was written with --output {earlier.output}, not {self.output}")
        if self.normalized != earlier.normalized:
            said = "normalised" if earlier.normalized else "not normalised"
            raise BulkError(f"{path} has vectors that are {said}, these would be otherwise")
