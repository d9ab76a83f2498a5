"""The command line: real processes where signals and exit codes count."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import F_SETPIPE_SZ, fcntl
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.settings import Settings
from tests.app.answers import cosines
from tests.app.fake_embedder import LOSES_DEVICE
from tests.app.gated_checkpoint import GatedCheckpoint
from tests.app.images import encode, plain_png, scene
from tests.app.reference_pipeline import ReferencePipeline
from tests.reference import ReferenceCheckpoint

START_S = 90
"""Time for a start, importing torch included, on a busy machine."""
STOP_S = 15
REPOSITORY = Path(__file__).parents[2]

_SERVE_FAKE = (
    "-c",
    "import sys, app.main; from tests.app.fake_embedder import FakeEmbedder;"
    "app.main.load_model = lambda _: FakeEmbedder();"
    "from app.__main__ import cli; cli(['serve', *sys.argv[1:]])",
)


class ServeProcess:
    """`python -m app serve` on a free port."""

    def __init__(self, *options: str, with_fake_embedder: bool = False, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        own = {"SIGLIP_PORT": str(self.port), "SIGLIP_DEVICE": "cpu", "SIGLIP_DTYPE": "float32"}
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(_SERVE_FAKE if with_fake_embedder else ("-m", "app", "serve")),
                *options,
            ],
            cwd=REPOSITORY,
            env={**os.environ, **own, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_for_status(self, status: str) -> None:
        """Ask /healthz until it says `status`."""
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            assert self.process.poll() is None, self.process.communicate()
            with suppress(httpx.TransportError):
                answer = httpx.get(f"{self.url}/healthz", trust_env=False)
                if answer.json()["status"] == status:
                    return
            time.sleep(0.05)
        raise AssertionError(f"never {status}")

    def wait_until_it_listens_no_more(self) -> None:
        """Wait until new connections are refused."""
        give_up_at = time.monotonic() + STOP_S
        while time.monotonic() < give_up_at:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except ConnectionError:
                return
            time.sleep(0.02)
        raise AssertionError("still listening")

    def end(self, timeout_s: float) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output, standard error."""
        output, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, output.decode(), errors.decode()


@contextmanager
def serve(
    *options: str, with_fake_embedder: bool = False, **settings: str
) -> Iterator[ServeProcess]:
    """Run the service; whatever happens, it is gone afterwards."""
    service = ServeProcess(*options, with_fake_embedder=with_fake_embedder, **settings)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.communicate()


def events(output: str) -> list[dict[str, Any]]:
    """Read log lines, each of which must be one JSON object."""
    return [json.loads(line) for line in output.splitlines()]


def test_a_service_answers_and_on_sigterm_finishes_what_it_accepted(
    tiny_checkpoint: ReferenceCheckpoint, tiny_reference: ReferencePipeline
) -> None:
    image = scene(0)
    body = encode(image)
    head = (
        "POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with serve(
        SIGLIP_MODEL=str(tiny_checkpoint.folder), SIGLIP_COLOUR="red", SIGLIP_MAX_BATCHSIZE="1"
    ) as service:
        service.wait_for_status("ok")
        with socket.create_connection(("127.0.0.1", service.port), timeout=STOP_S) as connection:
            connection.sendall(head.encode())
            accepted = connection.recv(1000)
            service.process.send_signal(signal.SIGTERM)
            service.wait_until_it_listens_no_more()
            connection.sendall(body)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        code, output, errors = service.end(STOP_S)

    assert accepted.startswith(b"HTTP/1.1 100")
    assert answer.startswith(b"HTTP/1.1 200")
    (item,) = json.loads(answer.partition(b"\r\n\r\n")[2])["data"]
    assert cosines(item["embedding"], tiny_reference.pooled(image)) >= 0.99999
    assert code in (0, 128 + signal.SIGTERM)
    assert errors == ""
    check_log(events(output))


@pytest.fixture
def _hangups_heeded() -> Iterator[None]:
    """Undo what `nohup` does to these tests: what is ignored is inherited."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangups_heeded")
def test_sighup_ends_the_service_as_sigterm_does_and_other_signals_do_not() -> None:
    body = plain_png((10, 20, 30))
    head = (
        "POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with serve(with_fake_embedder=True) as service:
        service.wait_for_status("ok")
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            service.process.send_signal(number)
        with socket.create_connection(("127.0.0.1", service.port), timeout=STOP_S) as connection:
            connection.sendall(head.encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 100")
            service.process.send_signal(signal.SIGHUP)
            service.wait_until_it_listens_no_more()
            connection.sendall(body)
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        code, output, errors = service.end(STOP_S)

    assert code == 128 + signal.SIGHUP
    assert errors == ""
    requests = [line for line in events(output) if line["event"] == "request"]
    assert {"method": "POST", "route": "/embed", "status": 200}.items() <= requests[-1].items()


def test_a_service_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serve(with_fake_embedder=True) as service:
            service.wait_for_status("ok")
            service.process.send_signal(signal.SIGHUP)
            service.wait_for_status("ok")
            service.process.send_signal(signal.SIGTERM)
            code, _, _ = service.end(STOP_S)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert code == 128 + signal.SIGTERM


def test_a_service_whose_log_nobody_reads_goes_on_and_later_says_what_it_dropped() -> None:
    count = 5_000
    with serve(with_fake_embedder=True) as service:
        service.wait_for_status("ok")
        log = service.process.stdout
        assert log is not None
        # It must hold no more than it is to: a slow start has logged many a look at its health.
        os.set_blocking(log.fileno(), False)
        log.read()
        os.set_blocking(log.fileno(), True)
        fcntl(log, F_SETPIPE_SZ, 4096)
        with socket.create_connection(("127.0.0.1", service.port), timeout=STOP_S) as connection:
            connection.sendall(count * b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n")
            with connection.makefile("rb") as lines_of_answers:
                answers = (line for line in lines_of_answers if b"HTTP/1.1 404" in line)
                assert len(list(islice(answers, count))) == count
        service.wait_for_status("ok")
        lines = events(log.readline().decode())
        while lines[-1]["event"] != "log lines were dropped":
            lines += events(log.readline().decode())
        service.process.send_signal(signal.SIGTERM)
        code, _, errors = service.end(STOP_S)

    asked = [line for line in lines if line["event"] == "request"]
    assert lines[-1]["lines"] > 0
    assert len(asked) + lines[-1]["lines"] >= count
    assert code == 128 + signal.SIGTERM
    assert errors == ""


def test_a_second_sigterm_ends_the_service_at_once_but_not_without_a_word(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    head = "POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n"
    with serve(SIGLIP_MODEL=str(tiny_checkpoint.folder), SIGLIP_GRACE_S="600") as service:
        service.wait_for_status("ok")
        with socket.create_connection(("127.0.0.1", service.port), timeout=STOP_S) as connection:
            connection.sendall(head.encode())
            service.process.send_signal(signal.SIGTERM)
            service.wait_until_it_listens_no_more()
            service.process.send_signal(signal.SIGTERM)
            answer = connection.recv(65536)
        code, output, errors = service.end(STOP_S)

    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"code":"draining"' in answer
    assert code == 128 + signal.SIGTERM
    assert errors == ""
    assert "Traceback" not in output


def test_after_sigterm_the_service_is_unready_but_serves_for_the_drain_delay(
    tiny_checkpoint: ReferenceCheckpoint,
) -> None:
    with serve(SIGLIP_MODEL=str(tiny_checkpoint.folder), SIGLIP_DRAIN_DELAY_S="2") as service:
        service.wait_for_status("ok")
        service.process.send_signal(signal.SIGTERM)
        service.wait_for_status("draining")
        served = httpx.post(
            f"{service.url}/embed",
            content=encode(scene(0)),
            headers={"Content-Type": "image/png"},
            trust_env=False,
        )
        service.wait_until_it_listens_no_more()
        code, _, errors = service.end(STOP_S)

    assert served.status_code == 200
    assert served.headers["connection"] == "close"
    assert code == 128 + signal.SIGTERM
    assert errors == ""


def check_log(log: list[dict[str, Any]]) -> None:
    """Assert that the log tells of the unknown setting, of being ready, and of the requests."""
    assert all(line.keys() >= {"event", "level", "logger", "timestamp"} for line in log)
    unknown = [line for line in log if line.get("variable") == "SIGLIP_COLOUR"]
    assert [line["level"] for line in unknown] == ["warning"]
    (misspelt,) = [line for line in log if line.get("variable") == "SIGLIP_MAX_BATCHSIZE"]
    assert misspelt["nearest"] == "SIGLIP_MAX_BATCH_SIZE"
    (ready,) = [line for line in log if line["event"] == "ready"]
    assert ready["dim"] == 32
    requests = [line for line in log if line["event"] == "request"]
    assert {"method": "POST", "route": "/embed", "status": 200}.items() <= requests[-1].items()
    assert requests[-1]["request_id"]


def test_sigterm_while_loading_ends_the_service_soon(
    tiny_checkpoint: ReferenceCheckpoint, tmp_path: Path
) -> None:
    gated = GatedCheckpoint(tiny_checkpoint.folder, tmp_path / "gated")
    with serve(SIGLIP_MODEL=str(gated.folder)) as service:
        service.wait_for_status("loading")
        service.process.send_signal(signal.SIGTERM)
        code, _, _ = service.end(STOP_S)

    assert code in (0, 128 + signal.SIGTERM)


def test_a_model_that_cannot_be_loaded_ends_the_service_with_3_and_one_line(
    tmp_path: Path,
) -> None:
    with serve(SIGLIP_MODEL=str(tmp_path / "none")) as service:
        code, output, errors = service.end(START_S)

    assert code == 3
    assert errors == ""
    (line,) = [line for line in events(output) if line["level"] == "critical"]
    assert line["event"] == "cannot start"
    assert "no folder" in line["reason"]
    assert "Traceback" not in output
    told = [line["event"] for line in events(output)]
    assert "listening" not in told[told.index("cannot start") :]
    assert "Uvicorn running" not in output


def test_a_port_in_use_ends_the_service_with_3_before_it_loads_anything(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with serve(SIGLIP_PORT=port, SIGLIP_MODEL=str(tmp_path / "none")) as service:
            code, output, errors = service.end(START_S)

    assert (code, errors) == (3, "")
    (line,) = events(output)
    assert line["event"] == "cannot start"
    assert line["reason"] == f"cannot listen on 127.0.0.1:{port}: address already in use"


def test_options_of_serve_override_the_variables() -> None:
    with serve(
        *("--host", "localhost", "--port", "0", "--model", "of/the-option"),
        with_fake_embedder=True,
        SIGLIP_HOST="192.0.2.1",
        SIGLIP_PORT="no number",
        SIGLIP_MODEL="",
    ) as service:
        log = service.process.stdout
        assert log is not None
        lines = (json.loads(line) for line in log)
        listening = next(line for line in lines if line["event"] == "listening")
        answer = httpx.get(f"{listening['url']}/livez", trust_env=False)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "99999"], "--port: Input should be less than or equal to 65535"),
        (["--host", ""], "--host: String should have at least 1 character"),
        (["--model", ""], "--model: String should have at least 1 character"),
    ],
)
def test_a_bad_option_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, options: list[str], said: str
) -> None:
    monkeypatch.setenv("SIGLIP_GRACE_S", "-1")

    result = CliRunner().invoke(cli, ["serve", *options])

    assert result.exit_code == 2
    assert said in result.stderr.splitlines()
    assert "SIGLIP_GRACE_S: Input should be greater than or equal to 0" in result.stderr


def test_commands_that_need_no_model_do_not_wait_for_torch() -> None:
    """Importing it takes longer than all the rest."""
    code = "import sys, app.__main__; sys.exit('torch' in sys.modules or 'model' in sys.modules)"

    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=START_S)


def test_the_version_is_that_of_the_package() -> None:
    result = CliRunner().invoke(cli, ["--version"])

    assert (result.exit_code, result.stdout) == (0, f"siglip-embed {version('siglip-embed')}\n")


def test_a_lost_device_ends_the_service_with_70_after_its_callers_heard() -> None:
    with serve(with_fake_embedder=True) as service:
        service.wait_for_status("ok")
        answer = httpx.post(
            f"{service.url}/embed",
            content=plain_png((LOSES_DEVICE, 0, 0)),
            headers={"Content-Type": "image/png"},
            trust_env=False,
        )
        code, output, _ = service.end(STOP_S)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "worker_dead"
    assert code == 70
    assert "the engine is lost, only a new process will do" in output


def test_a_bad_setting_ends_the_service_with_2_before_it_listens() -> None:
    with serve(SIGLIP_MAX_BATCH_SIZE="0") as service:
        code, output, errors = service.end(START_S)

    assert code == 2
    assert output == ""
    assert errors.startswith("SIGLIP_MAX_BATCH_SIZE: ")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGLIP_PORT", "99999"),
        ("SIGLIP_DTYPE", "int4"),
        ("SIGLIP_FORMATS", "jpeg,exe"),
        ("SIGLIP_LOG_LEVEL", "loud"),
        ("SIGLIP_QUEUE_IMAGES", "0"),
        ("SIGLIP_MAX_BODY_BYTES", "1"),
        ("SIGLIP_API_KEYS", ","),
        ("SIGLIP_API_KEYS_FILE", "/none"),
        ("SIGLIP_CORS_ORIGINS", "example.com"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "info"])
def test_a_bad_setting_is_named_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, command: str, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    result = CliRunner().invoke(cli, [command])

    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith((f"{variable}: ", f"{variable} must be"))


def test_every_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_PORT", "-1")
    monkeypatch.setenv("SIGLIP_DEVICE", "abacus")

    result = CliRunner().invoke(cli, ["info"])

    named = {line.partition(":")[0] for line in result.stderr.splitlines()}
    assert named == {"SIGLIP_PORT", "SIGLIP_DEVICE"}
    assert "abacus" not in result.stderr


def test_info_prints_every_setting_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_PORT", "8123")

    result = CliRunner().invoke(cli, ["info"])

    assert result.exit_code == 0
    printed = dict(line.partition("  # ")[0].split("=", 1) for line in result.stdout.splitlines())
    assert printed.keys() == {f"SIGLIP_{name.upper()}" for name in Settings.model_fields}
    assert printed["SIGLIP_PORT"] == "8123"
    assert printed["SIGLIP_FORMATS"] == "avif,bmp,gif,jpeg,png,webp"
    assert printed["SIGLIP_REVISION"] == ""
    assert printed["SIGLIP_URL_INPUT"] == "off"


@pytest.mark.parametrize("variable", ["SIGLIP_PORT", "siglip_port"])
def test_info_says_what_was_set_and_what_is_a_default(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "8000")

    lines = CliRunner().invoke(cli, ["info"]).stdout.splitlines()

    sources = {line.partition("=")[0]: line.partition("  # ")[2].split(";")[0] for line in lines}
    assert [name for name, source in sources.items() if source == "environment"] == ["SIGLIP_PORT"]
    assert set(sources.values()) == {"environment", "default"}


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("SIGLIP_MAX_BATCHSIZE", "SIGLIP_MAX_BATCH_SIZE"),
        ("SIGLIP_PROT", "SIGLIP_PORT"),
        ("siglip_modle", "SIGLIP_MODEL"),
        ("SIGLIP_COLOUR", None),
        ("SIGLIP_", None),
    ],
)
def test_info_names_the_setting_nearest_to_an_unknown_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, nearest: str | None
) -> None:
    monkeypatch.setenv(variable, "1")

    result = CliRunner().invoke(cli, ["info"])

    hint = f"; the nearest is {nearest}" if nearest else ""
    assert result.exit_code == 0
    assert result.stderr == f"{variable}: unknown setting is ignored{hint}\n"


def test_info_lists_the_published_models_and_their_cost() -> None:
    result = CliRunner().invoke(cli, ["info", "--models"])

    assert result.exit_code == 0
    head, *rows = result.output.splitlines()
    assert head.split()[0] == "model"
    (row,) = [row for row in rows if row.startswith("google/siglip-so400m-patch14-384 ")]
    assert row.split()[1:] == ["random:so400m-patch14-384", "729", "1152", "670.3", "1713", "856"]


def test_info_prints_how_many_keys_there_are_but_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_API_KEYS", "hush-one,hush-two")

    result = CliRunner().invoke(cli, ["info"])

    assert "SIGLIP_API_KEYS=(2 keys)" in result.stdout
    assert "hush" not in result.output


def test_what_info_prints_can_be_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in CliRunner().invoke(cli, ["info"]).stdout.splitlines():
        name, value = line.partition("  # ")[0].split("=", 1)
        monkeypatch.setenv(name, value)

    assert Settings() == Settings.model_construct()


def test_a_format_without_its_package_stops_the_start_and_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    told = CliRunner().invoke(cli, ["info"], env={"SIGLIP_FORMATS": "jpeg,heic"})

    assert told.exit_code == 2
    assert told.stderr == "SIGLIP_FORMATS names heic, which needs pip install '.[heic]'\n"
    assert CliRunner().invoke(cli, ["info"], env={"SIGLIP_FORMATS": "jpeg,tiff"}).exit_code == 0


def test_an_adapter_that_there_is_not_is_named_with_those_that_there_are() -> None:
    told = CliRunner().invoke(cli, ["info"], env={"SIGLIP_ADAPTERS": "weaviate,milvus"})

    assert told.exit_code == 2
    assert told.stderr == "SIGLIP_ADAPTERS names milvus; there are weaviate\n"
    assert CliRunner().invoke(cli, ["info"], env={"SIGLIP_ADAPTERS": "weaviate"}).exit_code == 0
