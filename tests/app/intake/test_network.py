"""The system's resolver, asked for what it knows without a network."""

import asyncio

import pytest

from app.intake.network import SystemLookup


def test_the_systems_resolver_gives_addresses_or_an_os_error() -> None:
    async def look_up(host: str) -> list[str]:
        return list(await SystemLookup()(host))

    assert asyncio.run(look_up("127.1")) == ["127.0.0.1"]
    assert asyncio.run(look_up("::1")) == ["::1"]
    for host in ("a" * 64, "..", "256.256.256.256.256"):
        with pytest.raises(OSError):  # noqa: PT011 # which kind is the system's business
            asyncio.run(look_up(host))
