"""What decoding an image may take, which follows from its pixels and bytes alone."""

from typing import NamedTuple


class Allowance(NamedTuple):
    """CPU seconds for any image, each of its pixels and each of its bytes; memory beyond both.

    The costliest honest files, large WebPs with alpha, were seen to take 57 ns a pixel;
    an AVIF without loss, 90 a byte:
    docs/decisions/0015-decoding-processes.md.
    """

    cpu_s: float = 1.5
    cpu_s_per_pixel: float = 80e-9
    cpu_s_per_byte: float = 100e-9
    spare_bytes: int = 48 * 2**20


FOR_ANY_IMAGE = Allowance()
