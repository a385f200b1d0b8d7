"""How callers reach the media server."""

from __future__ import annotations

import pytest

from harness.caller.network import Network
from harness.errors import UsageError


def network(url: str) -> Network:
    """A server at ``url``."""
    return Network(url=url, api_key="key", api_secret="secret")


@pytest.mark.parametrize(
    ("url", "websocket", "http"),
    [
        ("ws://127.0.0.1:7880", "ws://127.0.0.1:7880", "http://127.0.0.1:7880"),
        ("wss://sfu.example/", "wss://sfu.example", "https://sfu.example"),
        ("https://sfu.example", "wss://sfu.example", "https://sfu.example"),
    ],
)
def test_either_scheme_gives_both_addresses(url: str, websocket: str, http: str) -> None:
    """People write LIVEKIT_URL with ws and with http; callers need both."""
    assert (network(url).websocket_url, network(url).http_url) == (websocket, http)


@pytest.mark.parametrize(
    ("url", "is_loopback"), [("ws://127.0.0.1:1", True), ("ws://localhost:1", True), ("ws://[::1]:1", True), ("ws://sfu.example", False)]
)
def test_a_server_on_this_machine_is_known(url: str, *, is_loopback: bool) -> None:
    """There ICE must offer loopback addresses, and no proxy is asked."""
    assert network(url).is_loopback == is_loopback


def test_an_address_that_is_none_is_refused() -> None:
    """The sentence shows what was got and what was wanted."""
    with pytest.raises(UsageError, match=r"LIVEKIT_URL is '127\.0\.0\.1:7880'; wanted something like ws://127\.0\.0\.1:7880"):
        network("127.0.0.1:7880")
