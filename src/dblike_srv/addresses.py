"""Internet addresses, as sockets and headers name them.

Where a server listens at `[::]`, a socket of IPv6 names peers of IPv4 in its own way: 127.0.0.1 is
::ffff:127.0.0.1 there.
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """The address, of IPv4 whichever way it is named; None for what is none."""
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_within(text: str, network: str) -> bool:
    """Whether it is an address of the network."""
    address, wide = parse_address(text), ipaddress.ip_network(network, strict=False)
    if address is not None and address.version < wide.version:
        address = ipaddress.IPv6Address(f"::ffff:{address}")
    return address is not None and address in wide
