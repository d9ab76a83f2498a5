"""docs/recipes.md: its commands print what it says, each script run by its path."""

import re
import runpy
import shlex

import pytest

from tests.app.service_server import ServiceServer
from tests.recipes.conftest import DOCUMENT, REPOSITORY, Album

pytestmark = pytest.mark.recipes

SECTIONS = dict(
    re.findall(r"```sh\n(python .*?)```\n\n```text\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
)


def run_command(command: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of the document here, where packages are imported once."""
    _, script, *arguments = shlex.split(command)
    if {"--image", "--text"} & set(arguments):
        arguments += ["--url", url]
    monkeypatch.setattr("sys.argv", [script, *arguments])
    runpy.run_path(str(REPOSITORY / script), run_name="__main__")


def without_logs(printed: str) -> str:
    """Leave out the lines of the service, which runs here as well."""
    return re.sub(r"^\d{4}-\d\d-\d\d .*\n", "", printed, flags=re.MULTILINE)


def split_numbers(printed: str) -> tuple[list[str], list[float]]:
    """Return the words and the decimal fractions, which may differ a little between processors."""
    words = printed.split()
    numbers = [word for word in words if re.fullmatch(r"-?\d\.\d+", word)]
    return [word for word in words if word not in numbers], [float(number) for number in numbers]


@pytest.mark.parametrize("commands", SECTIONS)
def test_commands_print_what_the_document_says(
    commands: str,
    album: Album,
    service: ServiceServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(album.folder)

    for command in commands.splitlines():
        run_command(command, service.url, monkeypatch)

    printed = without_logs(capsys.readouterr().out)
    words, numbers = split_numbers(printed)
    said_words, said_numbers = split_numbers(SECTIONS[commands])
    assert words == said_words, printed
    assert numbers == pytest.approx(said_numbers, abs=2e-4)


def test_every_recipe_is_in_the_document() -> None:
    scripts = {path.name for path in (REPOSITORY / "examples/recipes").glob("[!_]*.py")}

    assert scripts == set(re.findall(r"recipes/(\w+\.py)", "".join(SECTIONS)))
