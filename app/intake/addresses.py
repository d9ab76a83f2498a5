"""Which network addresses a stranger may make this service connect to.

Only the address that is dialled counts. Its spelling does not: resolvers read `2130706433`,
`0x7f.1` and `127.1` all as 127.0.0.1.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# What `is_global` lets pass in some Python or other, and a service must not reach.
_FORBIDDEN_V4 = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; a cloud's metadata is among them
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # Azure's host, seen from its guests
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_FORBIDDEN_V6 = (
    IPv6Network("2001::/23"),  # protocol assignments; Teredo is among them
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),  # documentation
)
_NAT64 = IPv6Network("64:ff9b::/96")
# ISATAP: behind any prefix, but for two flags these 32 bits, and then an IPv4 address.
_ISATAP, _ISATAP_MASK = 0x0000_5EFE, 0xFCFF_FFFF


def is_public(address: str) -> bool:
    """Whether `address`, as a resolver or a socket gives it, is a host of the public internet.

    An IPv6 address that stands for an IPv4 address (mapped, NAT64) is judged by that one. All other
    tunnels to IPv4 (compatible, 6to4, Teredo, local NAT64) are outside of what is allowed, wherever
    they lead: their relays are gone, and a local one may lead inside.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_v4(parsed) if isinstance(parsed, IPv4Address) else _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    return not any(address in network for network in _FORBIDDEN_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    last_32_bits = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.ipv4_mapped is not None or address in _NAT64:
        return _is_public_v4(last_32_bits)
    if (int(address) >> 32) & _ISATAP_MASK == _ISATAP and not _is_public_v4(last_32_bits):
        return False
    return address in _GLOBAL_V6 and not any(address in network for network in _FORBIDDEN_V6)
