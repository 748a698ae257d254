"""Addresses of boards: what they mean, and what is refused before ssh sees it."""

from __future__ import annotations

import pytest

from dlx_deploy.devices.ssh.address import Address, parse_address
from dlx_deploy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ssh://orin", Address("orin")),
        ("ssh://edge@10.0.0.7:2222/opt/dlx/", Address("10.0.0.7", "edge", 2222, "/opt/dlx")),
        ("ssh://Edge.Lab_1/~/packages/a%20b", Address("Edge.Lab_1", None, None, "packages/a b")),
        ("ssh://[fe80::1%eth0]:22", Address("fe80::1%eth0", None, 22)),
        ("ssh://orin/a%3Fb%23c%25", Address("orin", None, None, "/a?b#c%")),
    ],
)
def test_an_address_says_where(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("orin", "it begins with ssh://"),
        ("ssh://", "a host is named by"),
        ("ssh://-oProxyCommand=reboot", "a host is named by"),
        ("ssh://-l@orin", "a user is named by"),
        ("ssh://a b", "a host is named by"),
        ("ssh://user:secret@orin", "passwords are not taken"),
        ("ssh://orin:99999", "a port is a number"),
        ("ssh://orin:0", "a port is a number"),
        ("ssh://orin/a%0ab", "control character"),
        ("ssh://orin/../etc", r"has '\.\.'"),
        ("ssh://orin/~root/x", "only /~/"),
        ("ssh://orin/x?y", r"'\?' and '#'"),
    ],
)
def test_what_is_no_address_is_refused(text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as refused:
        parse_address(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        *("ssh://pi:s3cret@board:99999", "ssh://pi:s3/cret@board", "pi:s3cret@board", "http://pi:s3cret@board"),
        *("ssh://pi:s3#cret@board", "ssh://pi:s3?cret@board", "ssh://pi:s3@cret@board", "ssh://pi:s3[cret@board"),
        *(
            "ssh://pi:s3cret@bo\u2100rd",
            "ssh://pi:s3\ncret@board",
            "ssh://pi:s3:cret@board/../x",
            "SSH://pi:s3cret@board",
        ),
    ],
)
def test_no_error_says_a_password(text: str) -> None:
    with pytest.raises(ConfigError, match=r":…@") as refused:
        parse_address(text)
    assert "s3" not in str(refused.value)
    assert "cret" not in str(refused.value)
