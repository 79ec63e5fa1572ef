"""Which proxy a connection takes: one rule for requests and streams.

The variables `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy` decide, in small or capital letters, or the
system's settings on macOS and Windows. httpx and websockets read them in different ways, and httpx fails on some values
of `no_proxy`; so the proxy is chosen here, and they are told.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from typing import Literal
from urllib.request import getproxies, proxy_bypass

import httpx

_SCHEMES = ("http", "https", "socks5", "socks5h")
_SYSTEM = "the proxy in the system's settings"


class ProxyUnusable(ValueError):
    """The environment names a proxy that cannot be used; the text says in which variable."""


def proxy_for(address: httpx.URL, socks_package: Literal["socksio", "python_socks"]) -> str | None:
    """The URL of the proxy through which to connect; None for a direct connection.

    This machine's loopback addresses are always connected to directly: a proxy would look for the service on its own
    machine.

    Args:
        address: the service's URL.
        socks_package: what the caller needs for SOCKS proxies.

    Raises:
        ProxyUnusable: if the variable does not contain the URL of a proxy, or the package is not installed.
    """
    if _is_loopback(address.host) or _is_bypassed(address):
        return None
    proxies = getproxies()
    scheme = address.scheme if proxies.get(address.scheme) else "all"
    value = proxies.get(scheme)
    if not value:
        return None
    # The value itself may contain a password, and so may what httpx says of it.
    proxy = value if "://" in value else f"http://{value}"
    try:
        parsed = httpx.URL(proxy)
    except httpx.InvalidURL:
        raise ProxyUnusable(f"{_variable(scheme, value)} is not a valid URL") from None
    if parsed.scheme not in _SCHEMES or not parsed.host:
        raise ProxyUnusable(
            f"{_variable(scheme, value)} must begin with http://, https://, socks5:// or socks5h:// and a host"
        )
    if parsed.scheme.startswith("socks") and importlib.util.find_spec(socks_package) is None:
        package = socks_package.replace("_", "-")
        raise ProxyUnusable(f"{_variable(scheme, value)} is a SOCKS proxy, which needs the package {package}")
    # Without a path, which means nothing, and with a password, without which websockets refuses a user.
    user = parsed.userinfo.decode("ascii")
    credentials = f"{user}@" if ":" in user else f"{user}:@" if user else ""
    return f"{parsed.scheme}://{credentials}{parsed.netloc.decode('ascii')}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # httpx has made it lower-case


def _is_bypassed(address: httpx.URL) -> bool:
    """Whether `no_proxy` names the host: as a name, its parent domain, an address or a network."""
    # urllib compares the text with and without port; an IPv6 address has brackets only beside a port.
    if proxy_bypass(address.host) or proxy_bypass(address.netloc.decode("ascii")):
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return any(ip in network for network in _networks(getproxies().get("no", "")))


def _networks(no_proxy: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    networks = []
    for entry in no_proxy.split(","):
        try:
            networks.append(ipaddress.ip_network(entry.strip().strip("[]"), strict=False))
        except ValueError:  # a name
            continue
    return networks


def _variable(scheme: str, value: str) -> str:
    """The name of the variable from which a proxy comes."""
    names = (name for name, given in os.environ.items() if name.lower() == f"{scheme}_proxy" and given == value)
    return next(names, _SYSTEM)
