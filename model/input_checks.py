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


def check_input_ids(input_ids: torch.Tensor, *, vocab_size: int, max_positions: int) -> None:
    """Refuse what no tokenizer of the model gives.

    Raises `TypeError` or `ValueError`. While the model is compiled or exported, ids have no values
    yet: then only their shape is checked.
    """
    check_shape("input_ids", input_ids, "batch", "tokens")
    dtype = str(input_ids.dtype).removeprefix("torch.")
    if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool:
        raise ValueError(f"input_ids are {dtype}; they must be integers, as the tokenizer gives")
    if input_ids.shape[1] > max_positions:
        raise ValueError(
            f"input_ids are {input_ids.shape[1]} tokens long; positions are learned for "
            f"{max_positions}"
        )
    if torch.compiler.is_compiling():
        return
    least, largest = (int(bound) for bound in torch.aminmax(input_ids))
    if least < 0 or largest >= vocab_size:
        raise ValueError(
            f"input_ids go from {least} to {largest}; the token table has 0 to {vocab_size - 1}"
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
