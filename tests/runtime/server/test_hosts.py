"""Which names a server answers to: a web page's name that was made to mean this machine is none."""

import httpx
import pytest
from xllmc.runtime.engine import Engine
from xllmc.runtime.server.hosts import is_loopback, may_name

from tests.runtime.server.serving import Running, running

OWN = ("localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:8000", "127.1.2.3:1", "[::1]", "[::1]:8000")
OTHERS = ("", ":8000", "evil.com", "evil.com:8000", "127.evil.com", "localhost.evil.com", "10.0.0.1", "[::1", "[::1]x")


@pytest.mark.parametrize("header", OWN)
def test_names_of_the_machine_itself_will_do(header: str) -> None:
    assert may_name(header, "127.0.0.1")


@pytest.mark.parametrize("header", OTHERS)
def test_other_names_will_not(header: str) -> None:
    assert not may_name(header, "127.0.0.1")


def test_only_names_of_the_machine_itself_are_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "::", "127.evil.com", "localhost.evil.com", "10.0.0.1")))


def asked_as(server: Running, name: str, path: str = "/v1/models", **headers: str) -> httpx.Response:
    return server.http.get(path, headers={"Host": name, **headers})


def test_a_server_without_keys_refuses_requests_for_others(server: Running) -> None:
    for path in ("/v1/models", "/metrics"):
        refused = asked_as(server, "evil.com:8000", path)
        assert refused.status_code == 403 and refused.json()["error"]["code"] == "wrong_host"
        assert "evil.com:8000" in refused.json()["error"]["message"]
    assert asked_as(server, "localhost:1").status_code == asked_as(server, "evil.com", "/health").status_code == 200


def test_a_server_with_keys_may_be_called_anything(other: Engine) -> None:
    with running(other, api_key=("secret",)) as keyed:
        assert asked_as(keyed, "my.proxy", Authorization="Bearer secret").status_code == 200
