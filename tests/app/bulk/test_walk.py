"""Which files a run embeds, and in which order."""

import errno
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.bulk.image_file import ImageFile
from app.bulk.left_out import WhyLeftOut
from app.bulk.walk import find_files
from app.errors import FileUnreadableError
from app.intake.formats import FORMATS
from tests.app.images import encode, scene

ALL = frozenset({"jpeg", "png", "webp", "gif", "bmp"})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def find(*arguments: str, formats: frozenset[str] = ALL, own: tuple[str, ...] = ()) -> list[str]:
    return list(find_files(map(Path, arguments), formats, map(Path, own)).paths)


def left_out_of(*arguments: str, own: tuple[str, ...] = ()) -> dict[WhyLeftOut, int]:
    return dict(find_files(map(Path, arguments), ALL, map(Path, own)).left_out.reasons)


@pytest.mark.usefixtures("here")
def test_a_folder_is_walked_in_the_order_of_names_at_each_level() -> None:
    touch("a/c.png", "a/b/2.png", "a/b/10.png", "a/B.png", "a/b.png", "a/d/x/y.png")

    assert find("a") == [
        "a/B.png",
        "a/b/10.png",
        "a/b/2.png",
        "a/b.png",
        "a/c.png",
        "a/d/x/y.png",
    ]


@pytest.mark.usefixtures("here")
def test_arguments_keep_their_order_and_each_path_counts_once() -> None:
    touch("a/1.png", "a/2.png", "z.png")

    assert find("z.png", "a/2.png", "./a", "a/", "z.png") == ["z.png", "a/2.png", "a/1.png"]


@pytest.mark.usefixtures("here")
def test_the_folder_we_are_in_is_no_spelling_of_its_own() -> None:
    touch("1.png", "b/2.png")

    assert find(".", "1.png", "./1.png", "b") == ["1.png", "b/2.png"]


@pytest.mark.usefixtures("here")
def test_an_argument_that_cannot_be_looked_at_is_taken_for_its_failure_to_be_told() -> None:
    assert find("d" * 300) == ["d" * 300]


@pytest.mark.usefixtures("here")
def test_of_a_folder_only_accepted_formats_count_and_of_files_all() -> None:
    touch("a/1.JPG", "a/2.jpeg", "a/3.png", "a/4.WebP", "a/5.txt", "a/jpg", "a/6.jpg.part")

    assert find("a") == ["a/1.JPG", "a/2.jpeg", "a/3.png", "a/4.WebP"]
    assert find("a", formats=frozenset({"png"})) == ["a/3.png"]
    assert find("a/5.txt", "none") == ["a/5.txt", "none"]


@pytest.mark.usefixtures("here")
def test_hidden_files_and_folders_count_only_when_named() -> None:
    touch("a/.1.png", "a/.b/2.png", "a/3.png")

    assert find("a") == ["a/3.png"]
    assert find("a/.1.png", "a/.b") == ["a/.1.png", "a/.b/2.png"]


@pytest.mark.usefixtures("here")
def test_links_to_files_are_followed_and_links_to_folders_only_when_named() -> None:
    touch("a/1.png", "b/2.png")
    Path("a/loop").symlink_to("..")
    Path("a/b").symlink_to("../b")
    Path("a/b.png").symlink_to("../b")
    Path("a/3.png").symlink_to("../b/2.png")
    Path("a/dangling.png").symlink_to("none")

    assert find("a") == ["a/1.png", "a/3.png", "a/dangling.png"]
    assert find("a/b") == ["a/b/2.png"]


@pytest.mark.usefixtures("here")
def test_a_folder_whose_name_ends_like_an_image_is_walked() -> None:
    touch("a/b.png/1.png")

    assert find("a") == ["a/b.png/1.png"]


def test_a_name_that_is_not_utf_8_is_spelled_in_it(here: Path) -> None:
    name = os.fsdecode(b"\xff\xe4.png")
    (here / "a").mkdir()
    (here / "a" / name).touch()

    found = find_files([Path("a")], ALL, [])

    assert found.paths == {"a/\\xff\\xe4.png": f"a/{name}"}


def test_no_two_names_are_spelled_alike_and_ordinary_ones_as_they_are(here: Path) -> None:
    spelled = {
        b"a.png": "a.png",
        "ä\n模.png".encode(): "ä\n模.png",
        b"a\\b.png": "a\\b.png",
        b"a\\x7f.png": "a\\x7f.png",  # a byte that needs no escape
        b"a\xff.png": r"a\xff.png",
        rb"a\xff.png": r"a\\xff.png",
        rb"a\\xff.png": r"a\\\\xff.png",
        b"a\\\xff.png": r"a\\\xff.png",
        "ä".encode() + rb"\xff.png": r"ä\\xff.png",
        "ä".encode() + b"\xff.png": r"ä\xff.png",
        b"\xed\xa0\x80.png": r"\xed\xa0\x80.png",  # half of a pair of UTF-16
    }
    for name in spelled:
        (here / os.fsdecode(name)).touch()

    found = find_files([Path()], ALL, []).paths

    assert found == {shown: os.fsdecode(name) for name, shown in spelled.items()}


@pytest.mark.usefixtures("here")
def test_a_link_that_leads_nowhere_is_one_failure_and_no_matter_of_its_folder() -> None:
    touch("a/1.png", "a/b/2.png", "file")
    Path("a/loop").symlink_to("loop")
    Path("a/loop.png").symlink_to("loop.png")
    Path("a/long.png").symlink_to("x" * 300)
    Path("a/under_a_file.png").symlink_to("../file/x")
    Path("a/b/loop.jpg").symlink_to("../loop")

    assert find("a") == [
        "a/1.png",
        "a/b/2.png",
        "a/b/loop.jpg",
        "a/long.png",
        "a/loop.png",
        "a/under_a_file.png",
    ]
    assert left_out_of("a") == {"other_format": 1}


@pytest.mark.usefixtures("here")
def test_what_was_listed_before_a_folder_failed_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    touch("a/1.png", "a/b/2.png", "c.png")
    real = os.scandir

    @contextmanager
    def fail_in_the_end(path: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        def entries() -> Iterator[os.DirEntry[str]]:
            yield from inside
            if path == "a":
                raise OSError(errno.EIO, "Input/output error")

        with real(path) as inside:
            yield entries()

    monkeypatch.setattr(os, "scandir", fail_in_the_end)

    assert find("a", "c.png") == ["a", "a/1.png", "a/b/2.png", "c.png"]


@pytest.mark.usefixtures("here")
def test_pipes_sockets_and_devices_of_a_folder_are_left_out_and_named_ones_are_not() -> None:
    touch("a/1.png")
    os.mkfifo("a/pipe.png")
    Path("a/link.png").symlink_to("pipe.png")
    Path("a/null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("a/socket.png")

    assert find("a") == ["a/1.png"]
    assert left_out_of("a") == {"special": 4}
    assert find("a/pipe.png", "/dev/null") == ["a/pipe.png", "/dev/null"]


@pytest.mark.usefixtures("here")
def test_what_is_left_out_of_folders_is_counted_once_by_its_reason() -> None:
    touch("a/1.png", "a/2.txt", "a/b/3.pdf", "a/.4.png", "a/.c/5.png", "a/6.txt", "a/out.npy")
    touch("a/out.npy.partial/journal")
    Path("a/d").symlink_to("b")

    counts = {"other_format": 3, "hidden": 2, "link_to_folder": 1}
    own = ("a/out.npy", "a/out.npy.partial")
    assert left_out_of("a", own=own) == counts
    assert left_out_of("a", "./a/", ".", own=own) == counts
    assert left_out_of("a", "a/6.txt", own=own) == counts | {"other_format": 2}
    assert left_out_of("a/1.png", "a/2.txt") == {}


def test_the_runs_own_files_are_left_out_however_they_are_spelled(here: Path) -> None:
    touch("a/1.png", "a/out.npy")

    assert find("a/1.png", "a/../a/out.npy", own=("a/out.npy",)) == ["a/1.png"]
    assert find(str(here / "a/out.npy"), "a", own=("a/out.npy",)) == ["a/1.png"]


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], None]]:
    """Makes folders in folders, of which pytest could not rid itself."""
    made: list[str] = []

    def nest(levels: int, name: str) -> None:
        for _ in range(levels):
            os.mkdir(name)  # noqa: PTH102 # relative to where we are
            os.chdir(name)
            made.append(name)

    monkeypatch.chdir(tmp_path)  # which goes back in the end
    yield nest
    monkeypatch.chdir(tmp_path)
    subprocess.run(["rm", "-rf", *made[:1]], check=True)


def test_more_levels_than_pythons_recursion_limit_are_walked(
    nested: Callable[[int, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested(1200, "d")
    Path("1.png").touch()
    monkeypatch.chdir(tmp_path)

    assert find("d") == ["d/" * 1200 + "1.png"]


def test_a_folder_that_cannot_be_listed_is_taken_for_its_failure_to_be_told(
    nested: Callable[[int, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nested(20, "d" * 250)  # a longer name than the system takes
    monkeypatch.chdir(tmp_path)

    (too_deep,) = find("d" * 250)

    assert not too_deep.endswith(".png")
    with pytest.raises(FileUnreadableError, match="file name too long"):
        ImageFile(Path(too_deep), 1)()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("image_format", sorted(FORMATS))
def test_a_file_without_an_extension_is_taken_for_what_it_begins_like(image_format: str) -> None:
    touch("a/none", "a/b/README")
    Path("a/blob").write_bytes(encode(scene(0), image_format))
    Path("a/dot.").write_bytes(encode(scene(0), image_format))
    Path("a/.hidden").write_bytes(encode(scene(0), image_format))
    Path("a/wrong.txt").write_bytes(encode(scene(0), image_format))
    Path("a/text").write_text("BMW and GIF89a")
    Path("a/short").write_bytes(b"BM")

    assert find("a", formats=frozenset({image_format})) == ["a/blob", "a/dot."]
    assert find("a", formats=frozenset(FORMATS) - {image_format}) == []
    left_out = find_files([Path("a")], frozenset({image_format}), []).left_out
    assert left_out.extensions == {"no extension": 4, ".txt": 1}


@pytest.mark.usefixtures("here")
def test_only_the_start_of_a_file_without_an_extension_is_read() -> None:
    touch("a/other.png")
    os.truncate("a/other.png", 0)
    with Path("a/huge").open("wb") as file:
        file.write(encode(scene(0)))
        file.truncate(2**40)

    assert find("a") == ["a/huge", "a/other.png"]


@pytest.mark.usefixtures("here")
def test_a_file_without_an_extension_that_cannot_be_looked_into_is_left_out() -> None:
    touch("a/1.png", "file")
    Path("a/nowhere").symlink_to("x")
    Path("a/loop").symlink_to("loop")
    os.mkfifo("a/pipe")

    assert find("a") == ["a/1.png"]
    assert left_out_of("a") == {"other_format": 2, "special": 1}
