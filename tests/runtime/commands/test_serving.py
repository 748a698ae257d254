from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import urllib.request
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy import cli
from dlx_deploy.commands.serve import Listening
from dlx_deploy.runtime.commands.main import view_of
from dlx_deploy.runtime.commands.serve_options import ServeRequest, add_serve_options, request_of
from dlx_deploy.runtime.commands.serving import open_server, serve
from dlx_deploy.runtime.errors import InputError, PackageError
from dlx_deploy.runtime.predictor import Predictor


def test_a_package_serves_until_it_is_told_to_end(dlx: Path, tmp_path: Path) -> None:
    """By its own code, out of the zip, the page included."""
    command = [sys.executable, str(dlx), "serve", "--port", "0", "--json", "--log-json", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        told = ""
        while not told.endswith("}\n") or told.count("{") != told.count("}"):
            line = process.stdout.readline()
            assert line, f"it ended, and had said: {told}"
            told += line
        found = json.loads(told)
        assert found["models"] == [{"name": "tiny", "version": "1.2.3"}]
        with urllib.request.urlopen(found["url"] + "/v2/models/tiny/ready", timeout=20) as answer:
            assert json.load(answer) == {"name": "tiny", "ready": True}
        with urllib.request.urlopen(found["url"] + "/metrics", timeout=20) as answer:
            assert 'dlx_ready{model="tiny",version="1.2.3"} 1' in answer.read().decode()
        with urllib.request.urlopen(found["url"] + "/", timeout=20) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
            assert b"<title>dlx-deploy</title>" in answer.read()
        process.send_signal(signal.SIGTERM)
        _, talk = process.communicate(timeout=20)
    assert (process.returncode, talk.splitlines()[-1]) == (0, "ended")
    events = [json.loads(one) for one in (tmp_path / "log").read_text().splitlines()]
    assert [(one["event"], one["model"]) for one in events] == [("ready", "tiny"), ("stopping", "tiny")]
    assert events[0]["tested"] is True


def test_a_server_that_breaks_down_ends_with_1(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any) -> None:
        raise RuntimeError("no selector")

    monkeypatch.setattr("dlx_deploy.runtime.serving.server.Server.run", broken)
    said: list[str] = []
    assert serve([predictor], ServeRequest(port=0, no_selftest=True), said.append, said.append) == 1
    assert said[-1] == "ended"
    assert "no selector" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "which others reach: give --token-file and --tls-cert and --tls-key too; or --insecure"),
        ({"host": "no such host"}, "is no address of this machine"),
        ({"port": 70_000}, "--port is 70000; must be 0 to 65535"),
        ({"capacity": 0}, "capacity is 0; must be 1 to "),
        ({"connections": 0}, "--connections is 0; must be 1 to 4096"),
        ({"max_body_mib": 0}, "--max-body-mib is 0; must be 1 to 4096"),
        ({"watchdog_s": 0.0}, "watchdog limit_s is 0.0; must be above 0"),
        ({"drift": True}, "tiny 1.2.3 carries no statistics to hold the field against"),
        ({"drain_s": float("nan")}, "--drain-s is nan; must be 0 to 3600"),
        ({"tls_cert": "a.pem"}, "--tls-cert and --tls-key belong together"),
        ({"tls_cert": "a.pem", "tls_key": "b.pem"}, "no certificate with its key"),
        ({"token_file": "no such file"}, "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(predictor: Predictor, changes: dict[str, Any], message: str) -> None:
    request = ServeRequest(**{"port": 0, **changes, **({"insecure": True} if "no such" in str(changes) else {})})
    with pytest.raises((InputError, PackageError)) as e:
        open_server([predictor], request)
    assert message in str(e.value)


def test_a_port_that_is_taken_is_named_with_the_remedy(predictor: Predictor) -> None:
    first = open_server([predictor], ServeRequest(port=0)).server
    with pytest.raises(InputError, match=r"port \d+ on 127.0.0.1 is taken; give another with --port, or 0"):
        open_server([predictor], ServeRequest(port=first.address[1]))
    first.drain(0)


def test_two_packages_of_one_name_and_version_are_refused(predictor: Predictor) -> None:
    with pytest.raises(InputError, match=r"two packages are called tiny 1\.2\.3; a request could not say which"):
        open_server([predictor, predictor], ServeRequest(port=0))


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("short", 0o600, "holds no token; must be one line of 16 characters or more"),
        ("two words, which is none", 0o600, "holds no token"),
        ("a" * 32, 0o644, r"others may read it \(mode 644\); keep it to yourself: chmod 600"),
        ("a" * 5000, 0o600, "has 5000 bytes; a token has at most 4096"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused(
    predictor: Predictor, tmp_path: Path, content: str, mode: int, message: str
) -> None:
    (tmp_path / "token").write_text(content)
    (tmp_path / "token").chmod(mode)
    with pytest.raises(InputError, match=message):
        open_server([predictor], ServeRequest(port=0, token_file=str(tmp_path / "token")))


def test_serve_is_no_command_for_who_wants_a_result(dlx: Path) -> None:
    with pytest.raises(InputError, match="serve answers until it is told to end, and gives no result: run it itself"):
        view_of(["serve"], str(dlx))


def test_one_signature_is_not_for_several_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "a.dlx", "b.dlx", "--signature", "a.dlx.sig"]) == 2
    assert "--signature names one file, and there are several packages" in capsys.readouterr().err


def test_both_commands_have_the_same_options() -> None:
    parser = argparse.ArgumentParser()
    add_serve_options(parser)
    assert [one.name for one in fields(Listening)] == [one.name for one in fields(ServeRequest)]
    assert request_of(parser.parse_args([])) == Listening().request() == ServeRequest()
