"""Settings: read from SIGLIP_* variables, checked each and together, frozen."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.keys import ApiKeys
from app.settings import Settings


def test_the_defaults_fit_together() -> None:
    settings = Settings()

    assert settings.model == "google/siglip-base-patch16-224"
    assert settings.model_fallback is None
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.formats == {"jpeg", "png", "webp", "gif", "bmp", "avif"}


def test_every_setting_can_be_set_and_has_a_description() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name


@pytest.mark.parametrize(
    ("variable", "value", "field", "expected"),
    [
        ("SIGLIP_MODEL", "owner/name", "model", "owner/name"),
        ("SIGLIP_REVISION", "", "revision", None),
        ("SIGLIP_REVISION", "main", "revision", "main"),
        ("SIGLIP_MODEL_FALLBACK", "random", "model_fallback", "random"),
        ("SIGLIP_MODEL_FALLBACK", "", "model_fallback", None),
        ("SIGLIP_DEVICE", "cuda:3", "device", "cuda:3"),
        ("SIGLIP_DTYPE", "bfloat16", "dtype", "bfloat16"),
        ("SIGLIP_MAX_BATCH_SIZE", "auto", "max_batch_size", "auto"),
        ("SIGLIP_MAX_BATCH_SIZE", "32", "max_batch_size", 32),
        ("SIGLIP_FORMATS", "png, jpeg", "formats", frozenset({"png", "jpeg"})),
        ("SIGLIP_FORMATS", "png,tiff,heic", "formats", frozenset({"png", "tiff", "heic"})),
        ("SIGLIP_PORT", "0", "port", 0),
        ("SIGLIP_REQUEST_TIMEOUT_S", "0.5", "request_timeout_s", 0.5),
        ("SIGLIP_URL_INPUT", "on", "url_input", True),
        ("SIGLIP_URL_INPUT", "true", "url_input", True),
        ("SIGLIP_URL_INPUT", "off", "url_input", False),
        ("SIGLIP_URL_ALLOWED_HOSTS", "", "url_allowed_hosts", frozenset()),
        (
            "SIGLIP_URL_ALLOWED_HOSTS",
            "A.example, *.B.example",
            "url_allowed_hosts",
            frozenset({"a.example", "*.b.example"}),
        ),
        ("SIGLIP_ADAPTERS", "", "adapters", frozenset()),
        ("SIGLIP_ADAPTERS", "weaviate, other", "adapters", frozenset({"weaviate", "other"})),
        ("SIGLIP_ADAPTERS_OPEN", "on", "adapters_open", True),
        ("SIGLIP_DOCS", "key", "docs", "key"),
        ("SIGLIP_DOCS", "off", "docs", "off"),
        ("SIGLIP_PLAYGROUND", "off", "playground", "off"),
        ("SIGLIP_CORS_ORIGINS", "", "cors_origins", frozenset()),
        ("SIGLIP_CORS_ORIGINS", "*", "cors_origins", frozenset({"*"})),
        (
            "SIGLIP_CORS_ORIGINS",
            "https://a.example, http://localhost:5173",
            "cors_origins",
            frozenset({"https://a.example", "http://localhost:5173"}),
        ),
        ("SIGLIP_API_KEYS", "", "api_keys", ApiKeys()),
        ("SIGLIP_API_KEYS", "one, two", "api_keys", ApiKeys.of(b"one", b"two")),
        ("SIGLIP_API_KEYS_FILE", "", "api_keys_file", ApiKeys()),
        ("SIGLIP_LOG_FORMAT", "console", "log_format", "console"),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)

    assert getattr(Settings(), field) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SIGLIP_MODEL", ""),
        ("SIGLIP_DEVICE", "gpu"),
        ("SIGLIP_DEVICE", "cuda:"),
        ("SIGLIP_DEVICE", "cpu\n"),
        ("SIGLIP_DTYPE", "int4"),
        ("SIGLIP_MAX_BATCH_SIZE", "0"),
        ("SIGLIP_MAX_BATCH_SIZE", ""),
        ("SIGLIP_MAX_BATCH_SIZE", "1025"),
        ("SIGLIP_MAX_BATCH_SIZE", "largest"),
        ("SIGLIP_MAX_WAIT_MS", "-1"),
        ("SIGLIP_HOST", ""),
        ("SIGLIP_PORT", "65536"),
        ("SIGLIP_PLAYGROUND", "key"),
        ("SIGLIP_PORT", "http"),
        ("SIGLIP_MAX_IMAGES", "0"),
        ("SIGLIP_MAX_PIXELS", "0"),
        ("SIGLIP_FORMATS", ""),
        ("SIGLIP_FORMATS", "jpeg,exe"),
        ("SIGLIP_REQUEST_TIMEOUT_S", "0"),
        ("SIGLIP_REQUEST_TIMEOUT_S", "nan"),
        ("SIGLIP_REQUEST_TIMEOUT_S", "inf"),
        ("SIGLIP_URL_INPUT", "perhaps"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "*"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "*.*.example"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a.*.example"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "https://a.example"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a.example/x"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a.example:443"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a.example,"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a.example,,b.example"),
        ("SIGLIP_URL_ALLOWED_HOSTS", "a..example"),
        ("SIGLIP_GRACE_S", "-1"),
        ("SIGLIP_HEAD_TIMEOUT_S", "0"),
        ("SIGLIP_BODY_TIMEOUT_S", "inf"),
        ("SIGLIP_MAX_CONNECTIONS", "0"),
        ("SIGLIP_API_KEYS", ","),
        ("SIGLIP_API_KEYS", "one two"),
        ("SIGLIP_API_KEYS", "clé"),
        ("SIGLIP_API_KEYS_FILE", "/dev/null"),
        ("SIGLIP_API_KEYS_FILE", "/none"),
        ("SIGLIP_API_KEYS_FILE", "/"),
        ("SIGLIP_ADAPTERS", "weaviate,"),
        ("SIGLIP_ADAPTERS", "../weaviate"),
        ("SIGLIP_ADAPTERS_OPEN", "perhaps"),
        ("SIGLIP_DOCS", "closed"),
        ("SIGLIP_CORS_ORIGINS", "https://a.example/"),
        ("SIGLIP_CORS_ORIGINS", "a.example"),
        ("SIGLIP_CORS_ORIGINS", "https://*.example"),
        ("SIGLIP_CORS_ORIGINS", "null"),
        ("SIGLIP_LOG_LEVEL", "loud"),
    ],
)
def test_a_value_out_of_range_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(ValidationError) as refused:
        Settings()
    # What may be a word or a number is refused as either.
    fields = {problem["loc"][0] for problem in refused.value.errors()}
    assert fields == {variable.removeprefix("SIGLIP_").lower()}


def test_the_largest_body_must_fit_into_the_bytes_in_flight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIGLIP_INFLIGHT_BYTES", "33554431")

    with pytest.raises(ValidationError, match="SIGLIP_INFLIGHT_BYTES"):
        Settings()


def test_the_largest_image_must_fit_into_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_MAX_BODY_BYTES", "1000")

    with pytest.raises(ValidationError, match="SIGLIP_MAX_BODY_BYTES"):
        Settings()


def test_all_origins_are_not_one_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_CORS_ORIGINS", "*,https://a.example")

    with pytest.raises(ValidationError, match="SIGLIP_CORS_ORIGINS"):
        Settings()


def test_keys_come_from_the_variable_and_from_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("three\n")
    monkeypatch.setenv("SIGLIP_API_KEYS", "one,two")
    monkeypatch.setenv("SIGLIP_API_KEYS_FILE", str(tmp_path / "keys"))

    settings = Settings()

    assert settings.api_keys | settings.api_keys_file == ApiKeys.of(b"one", b"two", b"three")


def test_settings_never_show_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_API_KEYS", "hush-hush")

    settings = Settings()

    assert "hush" not in repr(settings) + str(settings) + str(settings.model_dump())
    assert "api_keys=(1 key)" in repr(settings)


def test_a_refused_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_API_KEYS", "hush hush")

    with pytest.raises(ValidationError) as refused:
        Settings()
    assert "hush" not in str(refused.value)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        Settings(colour="red")  # type: ignore[call-arg]


def test_adapters_and_keys_are_meant_together_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGLIP_ADAPTERS", "weaviate")
    assert Settings().adapters == {"weaviate"}
    monkeypatch.setenv("SIGLIP_API_KEYS", "hush")
    with pytest.raises(ValidationError, match="SIGLIP_ADAPTERS_OPEN=on"):
        Settings()
    monkeypatch.setenv("SIGLIP_ADAPTERS_OPEN", "on")

    assert Settings().adapters_open
