"""Errors in words for what a model is given and cannot take."""

import torch


def check_pixel_values(pixel_values: torch.Tensor, *sides: int | str) -> None:
    """Refuse what no image processor gives; `sides` as in `check_shape`."""
    check_shape("pixel_values", pixel_values, *sides)
    if not pixel_values.is_floating_point():
        raise ValueError(
            f"pixel_values are {str(pixel_values.dtype).removeprefix('torch.')}; they must be "
            "floating-point numbers, normalised as the image processor does"
        )


def check_shape(name: str, tensor: torch.Tensor, *sides: int | str) -> None:
    """Refuse what is no tensor of such sides; words stand for any length but 0.

    Raises `TypeError` or `ValueError`.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} is of type {type(tensor).__name__}, which is no tensor")
    fits = len(sides) == tensor.ndim and all(
        length > 0 if isinstance(side, str) else length == side
        for side, length in zip(sides, tensor.shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, sides))
        raise ValueError(f"{name} is {tuple(tensor.shape)} instead of ({expected})")
