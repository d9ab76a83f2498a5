"""What the published models are and cost, as text: for whoever chooses one."""

from model.published import PUBLISHED_MODELS, PublishedModel, count_parameters, forward_flop

_HEAD = ("model", "random weights", "patches", "dim", "GFLOP", "MB float32", "MB bfloat16")


def describe_models() -> str:
    """Tabulate the published models: patches and operations of one image, memory of the weights."""
    rows = [_HEAD, *map(_row, PUBLISHED_MODELS)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _row(model: PublishedModel) -> tuple[str, ...]:
    config = model.config
    weights = count_parameters(config)
    return (
        model.name,
        f"random:{model.shape}",
        f"<= {config.num_patches}" if model.shape.endswith("naflex") else str(config.num_patches),
        str(config.hidden_size),
        f"{forward_flop(config) / 1e9:.1f}",
        str(round(weights * 4 / 1e6)),
        str(round(weights * 2 / 1e6)),
    )


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(names + figures)
