"""Which addresses may be dialled, above all those that Python calls global and are not."""

import pytest

from app.intake.addresses import is_public

# `is_global` is true for these in at least one Python that we run on.
GLOBAL_BUT_NOT_PUBLIC = [
    "224.0.0.1",
    "233.252.0.1",
    "192.88.99.1",
    "192.0.0.192",
    "168.63.129.16",
    "::127.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "ff02::1",
    "ff0e::1",
    "3fff::1",
    "5f00::1",
    "fec0::1",
    "2606:4700::5efe:7f00:1",
    "2606:4700::200:5efe:7f00:1",
    "2606:4700::5efe:a9fe:a9fe",
]
PLAINLY_PRIVATE = [
    "0.0.0.0",  # noqa: S104 # an address to refuse
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:127.0.0.1",
    "::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1:7f00:0:100::",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::5efe:808:808",
    "ff01::1",
]
TUNNELS_TO_PUBLIC_ADDRESSES = ["::8.8.8.8", "2002:808:808::", "64:ff9b:1::808:808", "2001::808:808"]
NO_ADDRESSES = [
    "",
    "localhost",
    "2130706433",
    "0x7f.1",
    "8.8.8.8 ",
    "8.8.8.8/32",
    "08.8.8.8",
    "[2606:4700::1111]",
    "2606:4700::1111%1",
    "fe80::1%eth0",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "172.32.0.1",
    "192.88.98.1",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:813::200e",
    "2606:4700::5efe:808:808",
    "3ffe::1",
]


@pytest.mark.parametrize(
    "address",
    [*GLOBAL_BUT_NOT_PUBLIC, *PLAINLY_PRIVATE, *TUNNELS_TO_PUBLIC_ADDRESSES, *NO_ADDRESSES],
)
def test_it_is_not_dialled(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_host_of_the_public_internet_is_dialled(address: str) -> None:
    assert is_public(address)
