"""Which path answers what: the protocol's endpoints, and those of this server's own."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple
from urllib.parse import parse_qsl

from ..errors import Busy, Expired, InputError, RuntimeFault, Stopped
from ..records import replace
from ..watching.exposition import CONTENT_TYPE, Family, exposition
from ..words import shortened
from .access import Access
from .asked import Asked, parse_asked
from .inference import infer, predict
from .messages import Head, Refused, Request, Response, json_response
from .models import Models, Served
from .page import page_response
from .reading import holding, holding_asked, read_asked, read_samples

__all__ = ["Routes"]

Answer = Callable[[Request], Response]
NAME = "dlx-deploy"
EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters")
READ, WRITE = ("GET", "HEAD"), ("POST",)
MAX_TOP_DIGITS = 9
STOPPING = "stopping"


class Routes:
    """What answers the requests of a server; ``version`` is that of this runtime."""

    def __init__(self, models: Models, access: Access, version: str) -> None:
        self._models, self._access, self._version = models, access, version
        self._fixed: Dict[Tuple[str, ...], Tuple[Tuple[str, ...], Answer]] = {
            (): (READ, lambda request: page_response()),
            ("v2",): (READ, self._server),
            ("v2", "health"): (READ, self._health),
            ("v2", "health", "live"): (READ, self._live),
            ("v2", "health", "ready"): (READ, self._ready),
            ("v2", "models"): (READ, self._index),
            ("v2", "repository", "index"): ((*READ, *WRITE), self._index),
            ("metrics",): (READ, self._metrics),
        }

    def admit(self, head: Head) -> None:
        """Refuses what needs no body to be refused.

        Raises:
            Refused: 401, 403, 404, 405.
        """
        self._access.check(head)
        methods, _ = self._find(head.path)
        if head.method not in methods:
            raise Refused(405, f"{shortened(head.method)} is not for this path", ("Allow", ", ".join(methods)))

    def answer(self, request: Request) -> Response:
        """The answer to a request that was admitted.

        Raises:
            Refused: there is none, and why.
        """
        return self._find(request.head.path)[1](request)

    def _find(self, path: Tuple[str, ...]) -> Tuple[Tuple[str, ...], Answer]:
        if path in self._fixed:
            return self._fixed[path]
        if path[:2] != ("v2", "models") or len(path) < 3:
            raise Refused(404, f"there is nothing at {shortened('/' + '/'.join(path))}; v2 says what this server is")
        version, rest = (path[4], path[5:]) if path[3:4] == ("versions",) and len(path) > 4 else (None, path[3:])
        actions: Dict[Tuple[str, ...], Tuple[Tuple[str, ...], Callable[[Served, Request], Response]]] = {
            (): (READ, self._metadata),
            ("ready",): (READ, self._model_ready),
            ("infer",): (WRITE, lambda served, request: _counted(served, request, _infer)),
            ("predict",): (WRITE, lambda served, request: _counted(served, request, _predict)),
        }
        if rest not in actions:
            raise Refused(404, f"there is nothing at {shortened('/'.join(rest))} of a model; infer and predict are")
        methods, action = actions[rest]
        served = self._models.find(path[2], version)
        return methods, lambda request: action(served, request)

    def _server(self, request: Request) -> Response:
        return json_response({"name": NAME, "version": self._version, "extensions": list(EXTENSIONS)})

    def _health(self, request: Request) -> Response:
        """More than the protocol has: of each model its health, what it has done, and its last window of drift."""
        reports = [one.watch.health.report() for one in self._models.all()]
        live, ready = all(one.live for one in reports), all(one.ready for one in reports)
        models = [one.watch.to_dict() for one in self._models.all()]
        return json_response({"live": live, "ready": ready, "models": models}, 200 if live else 503)

    def _live(self, request: Request) -> Response:
        live = all(one.watch.health.report().live for one in self._models.all())
        return json_response({"live": live}, 200 if live else 503)

    def _ready(self, request: Request) -> Response:
        ready = all(one.watch.health.report().ready for one in self._models.all())
        return json_response({"ready": ready}, 200 if ready else 503)

    def _index(self, request: Request) -> Response:
        known: List[Dict[str, str]] = []
        for one in self._models.all():
            health = one.watch.health.report()
            state = {"state": "READY"} if health.ready else {"state": "UNAVAILABLE", "reason": health.state}
            known.append({"name": one.name, "version": one.version, **state})
        return json_response(known)

    def _metrics(self, request: Request) -> Response:
        families: List[Family] = [family for one in self._models.all() for family in one.watch.families()]
        return Response(200, (exposition(families).encode("utf-8"),), CONTENT_TYPE)

    def _metadata(self, served: Served, request: Request) -> Response:
        return json_response(served.metadata(self._models.versions(served.name)))

    def _model_ready(self, served: Served, request: Request) -> Response:
        ready = served.watch.health.report().ready
        return json_response({"name": served.name, "ready": ready}, 200 if ready else 503)


def _counted(served: Served, request: Request, action: Callable[[Served, Request], Tuple[Response, int]]) -> Response:
    """The answer of ``action``, which also says about how many samples it is; its faults as the protocol has them."""
    counters, health = served.watch.counters, served.watch.health.report()
    if not health.ready and health.state != STOPPING:  # what has begun when it is to end is answered
        raise Refused(503, f"model {served.name} is {health.state}; try again later", ("Retry-After", "1"))
    counters.request(len(request.body))
    number = request.head.headers.get("x-request-id", "")
    try:
        response, samples = action(served, request)
    except Refused as e:
        counters.error(f"HTTP {int(e.status)}")
        raise
    except BaseException as e:
        served.watch.fault(e, number)
        if isinstance(e, RuntimeFault):
            raise _refusal(e) from e
        raise
    counters.answer(samples, response.length)
    return response


def _refusal(fault: RuntimeFault) -> Refused:
    if isinstance(fault, InputError):
        return Refused(400, str(fault))
    if not isinstance(fault, Busy):
        return Refused(500, str(fault))
    later = ("Retry-After", "1")
    return Refused(503 if isinstance(fault, (Expired, Stopped)) else 429, str(fault), later)


def _infer(served: Served, request: Request) -> Tuple[Response, int]:
    asked = parse_asked(request.head, request.body)
    with holding_asked(served, asked):
        return infer(served, asked)


def _predict(served: Served, request: Request) -> Tuple[Response, int]:
    """Of a request as for ``infer``, or of a body that is one sample itself, as its Content-Type says."""
    media = request.head.headers.get("content-type", "").partition(";")[0].strip().lower()
    own = str(getattr(served.predictor.package.task.inputs, "media", ""))
    if own and media.partition("/")[0] == own.partition("/")[0]:
        asked = Asked(None, (), None, top=_top(request.head.query), drawn=_drawn(request.head.query))
        with holding(served, 1):
            return predict(served, asked, read_samples(served, [bytes(request.body)], report=False, keep=True))
    if media.partition("/")[0] in ("image", "text", "audio", "video", "multipart"):
        takes = own or "tensors alone"
        raise Refused(415, f"Content-Type is {shortened(media)}; the model takes {takes}, or a request as infer does")
    asked = parse_asked(request.head, request.body)
    if asked.outputs is not None:
        raise Refused(400, "predict decodes all outputs; leave outputs out, or ask infer for tensors")
    top, drawn = _top(request.head.query, asked.top), _drawn(request.head.query)
    with holding_asked(served, asked):
        return predict(served, replace(asked, top=top, drawn=drawn), read_asked(served, asked, keep=True))


def _top(query: str, default: int = 1) -> int:
    """How many answers ``?top=5`` asks for."""
    text: Optional[str] = dict(parse_qsl(query)).get("top")
    if text is None:
        return default
    if not text.isdigit() or not text.isascii() or len(text) > MAX_TOP_DIGITS or not int(text):
        raise Refused(400, f"top is {shortened(text)}; must be a whole number, 1 or more")
    return int(text)


def _drawn(query: str) -> bool:
    """Whether ``?drawn=1`` asks for answers that are pictures."""
    text = dict(parse_qsl(query, keep_blank_values=True)).get("drawn", "0")
    if text not in ("0", "1"):
        raise Refused(400, f"drawn is {shortened(text)}; must be 0 or 1")
    return text == "1"
