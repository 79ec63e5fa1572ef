"""Who a request comes from, for the limits that hold for each caller."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.types import Scope

from service.api.request_context import request_context

_LONGEST_ADDRESS = 64
_NETWORK_BITS = 64


def caller_of(scope: Scope) -> str:
    """A name for the caller: that of the owner of its key, or its network where no keys are in force."""
    return request_context(scope).key_owner or client_network(scope)


def client_network(scope: Scope) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address, since every IPv6 host has many addresses."""
    host: str = (scope.get("client") or ("local",))[0]  # a Unix domain socket has no address
    try:
        address = ip_address(host)
    except ValueError:  # a trusted proxy may send any text
        return host[:_LONGEST_ADDRESS]
    if not isinstance(address, IPv6Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _NETWORK_BITS), strict=False))
