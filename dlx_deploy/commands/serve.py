"""``serve``: packages answer requests over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from dlx_deploy.commands.given import taking
from dlx_deploy.commands.opening import Opening, taking_opening
from dlx_deploy.commands.options import (
    CacheOption,
    JsonOption,
    say,
)
from dlx_deploy.commands.trusting import Trusting, taking_trust
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.commands.serve_options import (
    BODY_MIB,
    CAPACITY,
    CONNECTIONS,
    DRAIN_S,
    DRIFT_WINDOW,
    HOST,
    PORT,
    ServeRequest,
)

__all__ = ["Listening", "serve", "taking_address"]


@dataclass(frozen=True)
class Listening:
    """The options of the server itself, in the order of ``--help``."""

    host: Annotated[str, typer.Option(help="The address to listen on; by default this machine alone reaches it.")] = (
        HOST
    )
    port: Annotated[int, typer.Option(help="0: any that is free.")] = PORT
    token_file: Annotated[Path | None, typer.Option(help="The token that each request must bear.", metavar="FILE")] = (
        None
    )
    tls_cert: Annotated[Path | None, typer.Option(help="The certificate, with its chain.", metavar="PEM")] = None
    tls_key: Annotated[Path | None, typer.Option(help="Its key.", metavar="PEM")] = None
    insecure: Annotated[bool, typer.Option("--insecure", help="Another host without token and TLS.")] = False
    max_batch: Annotated[int | None, typer.Option(help="Samples that run together at most; by default 16.")] = None
    workers: Annotated[
        int | None, typer.Option(help="Batches of a model that run at once; by default cores / --threads, or 1.")
    ] = None
    max_wait_ms: Annotated[float, typer.Option(help="How long a request waits for others to run with.")] = 0.0
    capacity: Annotated[int, typer.Option(help="Samples that may wait for each model; more get 429.")] = CAPACITY
    connections: Annotated[int, typer.Option(help="At a time.")] = CONNECTIONS
    max_body_mib: Annotated[int, typer.Option(help="Of a request at most; larger ones get 413.")] = BODY_MIB
    drain_s: Annotated[float, typer.Option(help="For what has begun, once it is told to end.")] = DRAIN_S
    log_json: Annotated[
        str | None, typer.Option(help="What happens, a line of JSON each; -: on stderr.", metavar="FILE")
    ] = None
    watchdog_s: Annotated[
        float | None,
        typer.Option(help="A run that takes longer is stuck; by default 50 times the usual. At twice that it ends."),
    ] = None
    drift: Annotated[bool, typer.Option("--drift", help="Hold inputs and answers against those of the build.")] = False
    drift_window: Annotated[int, typer.Option(help="Samples held against the build's at once: 64, 256 or 1024.")] = (
        DRIFT_WINDOW
    )
    drift_every: Annotated[int, typer.Option(help="Of all samples each so many one.")] = 1
    no_selftest: Annotated[bool, typer.Option("--no-selftest", help="Serve without the self-test before.")] = False

    def request(self) -> ServeRequest:
        """The same as the runtime takes it."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        named: dict[str, Any] = {name: str(v) if isinstance(v, Path) else v for name, v in given.items()}
        return ServeRequest(**named)


def taking_address(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which has a parameter that is a ``Listening``, as a function of its fields."""
    return taking(Listening, command, last=True)


@taking_trust
@taking_address
@taking_opening
def serve(
    trusting: Trusting,
    listening: Listening,
    opening: Opening,
    packages: Annotated[list[Path], typer.Argument(help="The .dlx files.", metavar="PACKAGE...")],
    cache: CacheOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let packages answer requests over HTTP, by the KServe v2 inference protocol."""
    from dlx_deploy.runtime.commands.serving import serve as serve_packages
    from dlx_deploy.runtime.package.contents import open_package
    from dlx_deploy.runtime.predictor import Predictor
    from dlx_deploy.runtime.terminal import show

    if trusting.signature is not None and len(packages) > 1:
        raise ConfigError("--signature names one file, and there are several packages; leave it out: PACKAGE.sig each")
    options = opening.options(cache)
    trust = trusting.trust()
    predictors = [Predictor(open_package(path, trust), options, say) for path in packages]
    code = serve_packages(predictors, listening.request(), show, say, as_json)
    if code:
        raise typer.Exit(code)
