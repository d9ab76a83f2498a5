"""Every performance claim, reproducible: `python -m benchmarks`, or one module of it at a time.

Figures are ratios between contenders that took turns in one run on one machine; absolute times are
shown to make the ratios readable, and are worth nothing on another day.
"""
