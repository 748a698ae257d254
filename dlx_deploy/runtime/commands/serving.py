"""``serve`` as a command: what it refuses, and the server from its start to its end."""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence, Tuple

from ..errors import InputError
from ..package.archive import to_json
from ..predictor import Predictor
from ..schemas import PACKAGE, RESULT
from ..serving.access import LOCAL, Access, is_loopback, read_tls, read_token
from ..serving.direct import Direct
from ..serving.models import Models, Served
from ..serving.routes import Routes
from ..serving.server import Server, Settings, listen
from ..serving.stream import Limits
from ..words import line
from .serve_options import ServeRequest

__all__ = ["open_server", "serve"]


def serve(
    predictors: Sequence[Predictor],
    request: ServeRequest,
    show: Callable[[str], None],
    say: Callable[[str], None],
    as_json: bool = False,
) -> None:
    """Serves until it is interrupted (SIGTERM, Ctrl-C); what was being answered is answered yet.

    Raises:
        InputError: as ``open_server``. KeyboardInterrupt: it was interrupted, and something was not answered in time.
    """
    server, routes = open_server(predictors, request)
    found = _found(predictors, server, request)
    show(to_json(found).decode("utf-8").rstrip("\n") if as_json else "\n".join(_lines(found)))
    try:
        server.run()
    except KeyboardInterrupt:
        routes.close()
        say("ending: no more connections are taken, what has begun is answered")
        if not server.drain(request.drain_s):
            raise
        say("ended")


def open_server(predictors: Sequence[Predictor], request: ServeRequest) -> Tuple[Server, Routes]:
    """A server that listens and does not serve yet, and its routes.

    Raises:
        InputError: an option is out of range, the address is open to others without a token and TLS, it is taken, or
            two packages have one name.
    """
    _check(request)
    models = Models([Served(one, Direct(one, request.capacity)) for one in predictors])
    token = read_token(request.token_file) if request.token_file is not None else None
    tls = None
    if request.tls_cert is not None and request.tls_key is not None:
        tls = read_tls(request.tls_cert, request.tls_key)
    local = is_loopback(request.host)
    hosts = LOCAL | {f"[{request.host}]" if ":" in request.host else request.host.lower()} if local else None
    routes = Routes(models, Access(token, hosts), str(PACKAGE))
    limits = Limits(body_bytes=request.max_body_mib * 1024**2)
    settings = Settings(request.connections, limits, tls)
    return Server(listen(request.host, request.port), routes, settings), routes


def _check(request: ServeRequest) -> None:
    ranges = {"port": (0, 65_535), "capacity": (1, 65_536), "connections": (1, 4_096), "max_body_mib": (1, 4_096)}
    for name, (least, most) in ranges.items():
        value = getattr(request, name)
        if not least <= value <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}; must be {least} to {most}")
    if not 0 <= request.drain_s <= 3600:
        raise InputError(f"--drain-s is {request.drain_s:g}; must be 0 to 3600")
    if (request.tls_cert is None) != (request.tls_key is None):
        raise InputError("--tls-cert and --tls-key belong together; give both or neither")
    if is_loopback(request.host) or request.insecure:
        return
    missing = [
        name
        for name, value in (("--token-file", request.token_file), ("--tls-cert and --tls-key", request.tls_cert))
        if value is None
    ]
    if missing:
        raise InputError(
            f"host is {line(request.host)}, which others reach: give {' and '.join(missing)} too; or --insecure, where "
            "something before it asks who they are"
        )


def _found(predictors: Sequence[Predictor], server: Server, request: ServeRequest) -> Dict[str, object]:
    host, port = server.address
    named = f"[{host}]" if ":" in host else host
    url = f"{'https' if request.tls_cert else 'http'}://{named}:{port}"
    models = [{"name": one.package.name, "version": one.package.version} for one in predictors]
    return {"schema": RESULT, "url": url, "models": models}


def _lines(found: Dict[str, object]) -> List[str]:
    models = found["models"]
    assert isinstance(models, list)
    return [
        f"{line(one['name'])} {line(one['version'])}\t{found['url']}/v2/models/{line(one['name'])}" for one in models
    ]
