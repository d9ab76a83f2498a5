"""Draws throughput and latency against concurrency, as SVG."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Sequence[tuple[int, float]]


def can_draw() -> bool:
    """Tell whether matplotlib, an optional extra, is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_chart(
    path: Path, title: str, images_per_s: Mapping[str, Points], p50_ms: Mapping[str, Points]
) -> None:
    """Write two panels over concurrency, one line per service in each."""
    import matplotlib as mpl  # optional, and slow to import

    mpl.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for panel, name, lines in zip(
        panels, ("images/s", "latency p50, ms"), (images_per_s, p50_ms), strict=True
    ):
        for service, points in lines.items():
            panel.plot(*zip(*points, strict=True), marker="o", label=service)
        panel.set(xscale="log", xlabel="concurrency", ylabel=name)
        ticks = sorted({x for points in lines.values() for x, _ in points})
        panel.set_xticks(ticks, map(str, ticks), minor=False)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylim(0)
    panels[1].set_yscale("log")
    panels[0].legend(frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)
