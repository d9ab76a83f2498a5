"""What an image processor gives and a model takes."""

from typing import Any, Self

import torch


class BatchFeature(dict[str, torch.Tensor]):
    """Tensors by name, which are also attributes: `model(**inputs)`, `inputs.pixel_values`.

    The names are the reference's, and so is that of this class.
    """

    def __getattr__(self, name: str) -> torch.Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchFeature has no {name}, only {', '.join(self)}") from None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move all tensors to a device, cast those of floating-point numbers to a dtype, or both.

        The arguments are those of `torch.nn.Module.to`. Changes this object and returns it, as the
        reference does.
        """
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        for name, tensor in self.items():
            cast = dtype if tensor.is_floating_point() else None
            self[name] = tensor.to(device, cast, non_blocking)
        return self
