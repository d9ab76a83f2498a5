"""Rows of a large table in a safetensors file, read one by one as they are looked up."""

import json
import os
from math import prod
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

_HEADER_LENGTH_BYTES = 8
_DTYPES = MappingProxyType(
    {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
)


class TensorRows:
    """A matrix of a safetensors file that takes no memory.

    A mapping of the file would: the system maps up to 2 MiB around each row that is touched, so
    that a few hundred rows make most of a table resident. The file stays open, so what takes its
    place under the same name changes nothing. May be used by many threads at once.
    """

    def __init__(self, path: Path, key: str) -> None:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            entry = json.loads(file.read(header_bytes))[key]
            self._file = os.dup(file.fileno())
        self.dtype = _DTYPES[entry["dtype"]]
        self.shape = torch.Size(entry["shape"])
        self._row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        self._start = _HEADER_LENGTH_BYTES + header_bytes + entry["data_offsets"][0]

    def __del__(self) -> None:
        """Close the file, if it came so far."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def look_up(self, indices: torch.Tensor) -> torch.Tensor:
        """Read the rows of indices, each once: (...) -> (..., width) in the file's dtype.

        Raises `IndexError` for what is no row, `OSError` for what cannot be read.
        """
        # In numpy: so little is not worth waking torch's threads, and it knows no bfloat16.
        wanted, places = np.unique(indices.numpy(), return_inverse=True)
        rows = np.empty((len(wanted), self._row_bytes), np.uint8)
        for row, index in zip(rows, wanted.tolist(), strict=True):
            if not 0 <= index < len(self):
                raise IndexError(f"{index} is no row of {len(self)}")
            if os.preadv(self._file, [row.data], self._start + index * self._row_bytes) != len(row):
                raise OSError(f"row {index} ends early")
        found = torch.from_numpy(rows[places.reshape(-1)]).view(self.dtype)
        return found.view(*indices.shape, -1)
