"""Decoding in a process of its own: the same pixels, and whatever happens to it stays there."""

import errno
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.errors import (
    DrainingError,
    ImageSuspiciousError,
    ImageTruncatedError,
    ImageUndecodableError,
    InternalError,
)
from app.intake import decode_child
from app.intake.allowance import FOR_ANY_IMAGE
from app.intake.decode import DecodeLimits, decode_image
from app.intake.decode_child import DecodeChild
from app.intake.decode_process import DecodeProcess, Grant, Opened, PillowResize, Received
from tests.app.images import encode, oriented, plain_png, scene, truncated_jpeg

FORMATS = ("bmp", "gif", "jpeg", "png", "webp")
LIMITS = DecodeLimits(2**26, 10**8, 65_535, frozenset(FORMATS))
WAIT_S = 30


@pytest.fixture(scope="module")
def large() -> Image.Image:
    """An image of 20 megapixels: decoding it takes a while on any processor."""
    return scene(7, (5000, 4000))


@pytest.fixture
def process() -> Iterator[DecodeProcess]:
    process = DecodeProcess(LIMITS)
    yield process
    process.close()


def decode(process: DecodeProcess, data: bytes) -> Received:
    """Decode without resizing."""
    return process.decode(data, None, lambda _: None)


def pid_of(process: DecodeProcess) -> int:
    """Return the process's id, once it runs."""
    return process.child.pid


@pytest.mark.parametrize("image_format", FORMATS)
def test_pixels_are_those_of_decoding_here(process: DecodeProcess, image_format: str) -> None:
    data = encode(scene(3), image_format)

    received = decode(process, data)

    here = decode_image(data, LIMITS)
    assert bytes(received.rgb) == here.pixels.tobytes()
    assert received.pixels_size == received.size == here.size == (60, 40)
    assert received.format == here.format
    assert received.warnings == here.warnings


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_pillow_resizes_in_the_process(process: DecodeProcess, orientation: int) -> None:
    stored, exif = oriented(scene(4), orientation)
    data = encode(stored, exif=exif)

    received = process.decode(data, None, lambda _: PillowResize((9, 7), 3))

    assert bytes(received.rgb) == scene(4).resize((9, 7), 3).tobytes()
    assert received.pixels_size == (9, 7)
    assert received.size == (60, 40)


def test_a_jpeg_is_reduced_in_the_process(process: DecodeProcess) -> None:
    data = encode(scene(5, (400, 320)), "JPEG")

    received = process.decode(data, 40, lambda _: None)

    assert received.pixels_size == (50, 40)
    assert received.size == (400, 320)


def test_memory_and_upright_size_are_told_before_pixels_are_decoded(process: DecodeProcess) -> None:
    stored, exif = oriented(scene(6), 6)
    heard: list[Opened] = []

    def listen(opened: Opened) -> None:
        heard.append(opened)

    process.decode(encode(stored, "JPEG", exif=exif), None, listen)

    assert heard == [Opened((60, 40), 60 * 40 * 12)]


def test_what_is_granted_is_not_asked_for(process: DecodeProcess) -> None:
    asked: list[Opened] = []
    grant = Grant(2**20, PillowResize((4, 4), Image.Resampling.BICUBIC))

    def ask(opened: Opened) -> PillowResize:
        asked.append(opened)
        return PillowResize((5, 5), Image.Resampling.BICUBIC)

    small = process.decode(encode(scene(1)), None, ask, grant)
    large = process.decode(encode(scene(1, (600, 400))), None, ask, grant)

    assert small.pixels_size == (4, 4)
    assert large.pixels_size == (5, 5)
    assert [opened.size for opened in asked] == [(600, 400)]


def test_errors_of_an_image_cross_as_what_they_are(process: DecodeProcess) -> None:
    with pytest.raises(ImageTruncatedError, match="the JPEG ends early"):
        decode(process, truncated_jpeg())


def test_an_image_over_its_cpu_time_ends_its_process_and_no_other_image(
    large: Image.Image,
) -> None:
    process = DecodeProcess(LIMITS, FOR_ANY_IMAGE._replace(cpu_s=0.02, cpu_s_per_pixel=0))
    before = pid_of(process)

    with pytest.raises(ImageSuspiciousError, match="takes far longer"):
        decode(process, encode(large, "JPEG"))

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    assert pid_of(process) != before
    process.close()


def test_pixels_earn_cpu_time(large: Image.Image) -> None:
    process = DecodeProcess(LIMITS, FOR_ANY_IMAGE._replace(cpu_s=0.02, cpu_s_per_pixel=1e-6))

    assert len(decode(process, encode(large, "JPEG")).rgb) == 3 * 5000 * 4000
    process.close()


def has_huge_pages_for_malloc() -> bool:
    """Tell whether the kernel gives huge pages to who asks, and the C library can ask."""
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    library, version = platform.libc_ver()
    is_able = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return is_able and setting.is_file() and "[madvise]" in setting.read_text()


@pytest.mark.skipif(not has_huge_pages_for_malloc(), reason="no huge pages on demand here")
def test_pixels_lie_on_huge_pages(process: DecodeProcess, large: Image.Image) -> None:
    def faults() -> int:
        return int(Path(f"/proc/{pid_of(process)}/stat").read_text().rpartition(")")[2].split()[7])

    decode(process, plain_png((1, 2, 3)))
    before = faults()

    process.decode(encode(large, "JPEG"), None, lambda _: PillowResize((9, 7), 3))

    assert faults() - before < 5000 * 4000 * 4 // 4096 // 2  # half of what small pages would be


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no limit of memory here")
def test_an_image_over_its_memory_fails_alone(large: Image.Image) -> None:
    process = DecodeProcess(LIMITS, FOR_ANY_IMAGE._replace(spare_bytes=-190 * 2**20))

    with pytest.raises(ImageUndecodableError):
        decode(process, encode(large, "BMP"))

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    process.close()


def signalled(process: DecodeProcess, number: int) -> Callable[[Opened], None]:
    """Send the process a signal when it has opened an image."""
    return lambda _: os.kill(pid_of(process), number)


def test_a_crash_is_the_images_and_is_survived(process: DecodeProcess) -> None:
    with pytest.raises(ImageUndecodableError):
        process.decode(plain_png((1, 2, 3)), None, signalled(process, signal.SIGSEGV))

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"


def test_one_that_dies_while_idle_costs_no_image(process: DecodeProcess) -> None:
    decode(process, plain_png((1, 2, 3)))
    os.kill(pid_of(process), signal.SIGKILL)
    os.waitid(os.P_PID, pid_of(process), os.WEXITED | os.WNOWAIT)

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"


def test_one_that_dies_while_it_starts_costs_no_image(process: DecodeProcess) -> None:
    os.kill(pid_of(process), signal.SIGKILL)  # it has had no image yet
    os.waitid(os.P_PID, pid_of(process), os.WEXITED | os.WNOWAIT)

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    assert not process.broken


def test_a_start_that_fails_once_is_tried_again(
    process: DecodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(process, plain_png((1, 2, 3)))
    os.kill(pid_of(process), signal.SIGKILL)
    os.waitid(os.P_PID, pid_of(process), os.WEXITED | os.WNOWAIT)
    first = tmp_path / "first"
    first.touch()
    monkeypatch.setattr(
        decode_child,
        "_START",
        f"import os\nif os.path.exists({str(first)!r}): os.remove({str(first)!r}); os.abort()\n"
        + decode_child._START,
    )

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    assert not first.exists()
    assert not process.broken


def test_one_that_stops_reading_in_the_middle_of_a_file_costs_no_image(
    process: DecodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(process, plain_png((1, 2, 3)))
    os.kill(pid_of(process), signal.SIGSTOP)
    monkeypatch.setattr(decode_child, "_LOOK_EVERY_MS", 50)
    file = encode(scene(8, (1600, 1200)), "BMP")
    assert len(file) > decode_child._SOCKET_BYTES

    assert decode(process, file).format == "BMP"


def test_the_memory_of_one_image_does_not_limit_the_file_of_the_next(
    process: DecodeProcess,
) -> None:
    small, large = plain_png((1, 2, 3)), encode(Image.new("RGB", (4600, 4600)), "BMP")
    assert 3 * len(small) + FOR_ANY_IMAGE.spare_bytes < len(large) < LIMITS.max_image_bytes

    decode(process, small)
    before = pid_of(process)
    decode(process, large)

    assert pid_of(process) == before


def test_no_process_to_be_had_is_our_fault_and_passes(
    process: DecodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(process, plain_png((1, 2, 3)))
    os.kill(pid_of(process), signal.SIGKILL)
    os.waitid(os.P_PID, pid_of(process), os.WEXITED | os.WNOWAIT)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    with pytest.raises(InternalError):
        decode(process, plain_png((1, 2, 3)))

    monkeypatch.undo()
    assert decode(process, plain_png((1, 2, 3))).format == "PNG"


def test_a_decoder_that_hangs_is_ended(
    process: DecodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(process, plain_png((1, 2, 3)))
    before = pid_of(process)
    monkeypatch.setattr(decode_child, "_LOOK_EVERY_MS", 20)

    with pytest.raises(ImageSuspiciousError, match="takes far longer"):
        process.decode(plain_png((1, 2, 3)), None, signalled(process, signal.SIGSTOP))

    assert not Path(f"/proc/{before}").exists()
    monkeypatch.undo()
    assert decode(process, plain_png((1, 2, 3))).format == "PNG"


def test_a_decoder_that_computes_is_waited_for(
    process: DecodeProcess, large: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode(process, plain_png((1, 2, 3)))
    monkeypatch.setattr(decode_child, "_LOOK_EVERY_MS", 1)
    clock = iter(range(10**6))
    monkeypatch.setattr(DecodeChild, "cpu_s", property(lambda _: next(clock)))

    assert len(decode(process, encode(large, "JPEG")).rgb) == 3 * 5000 * 4000


def test_a_caller_that_gives_up_leaves_no_process_that_waits(process: DecodeProcess) -> None:
    def give_up(_: Opened) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.decode(plain_png((1, 2, 3)), None, give_up)

    assert decode(process, plain_png((4, 5, 6))).rgb[:3] == bytes((4, 5, 6))


def test_signals_to_the_service_do_not_end_its_decoders(process: DecodeProcess) -> None:
    decode(process, plain_png((1, 2, 3)))
    before = pid_of(process)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(before, number)

    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    assert pid_of(process) == before


def cannot_be_made(*_: object, **__: object) -> None:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize(
    ("place", "name", "fault"),
    [(decode_child, "_START", "raise SystemExit(3)"), (subprocess, "Popen", cannot_be_made)],
)
def test_processes_that_do_not_start_are_told(
    process: DecodeProcess, monkeypatch: pytest.MonkeyPatch, place: object, name: str, fault: object
) -> None:
    process.child.end()
    monkeypatch.setattr(place, name, fault)
    assert not process.broken

    with pytest.raises(InternalError):
        decode(process, plain_png((1, 2, 3)))
    assert process.broken

    monkeypatch.undo()
    assert decode(process, plain_png((1, 2, 3))).format == "PNG"
    assert not process.broken


def test_no_secret_is_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_API_KEYS", "a-secret-key")
    monkeypatch.setenv("HF_TOKEN", "another-secret")
    process = DecodeProcess(LIMITS)
    decode(process, plain_png((1, 2, 3)))

    environment = Path(f"/proc/{pid_of(process)}/environ").read_bytes()

    assert b"secret" not in environment
    process.close()


def test_closed_it_decodes_no_more_and_leaves_nothing(process: DecodeProcess) -> None:
    decode(process, plain_png((1, 2, 3)))
    process.close()

    with pytest.raises(DrainingError):
        decode(process, plain_png((1, 2, 3)))
    assert not Path(f"/proc/{pid_of(process)}").exists()


def test_it_ends_with_its_service() -> None:
    process = DecodeProcess(LIMITS)
    decode(process, plain_png((1, 2, 3)))
    process.child.line.close()  # as the kernel does for a process that is killed

    assert process.child._process.wait(WAIT_S) == 0
    process.close()


def test_time_that_a_decoder_waits_for_memory_is_not_its_own() -> None:
    def wait(_: Opened) -> None:
        time.sleep(0.2)

    impatient = DecodeProcess(LIMITS, FOR_ANY_IMAGE._replace(cpu_s=0.15))
    assert impatient.decode(plain_png((1, 2, 3)), None, wait).format == "PNG"
    impatient.close()
