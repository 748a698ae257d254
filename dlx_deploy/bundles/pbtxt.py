"""Values as the text format of Protocol Buffers, which Triton's ``config.pbtxt`` is written in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Enum", "Message", "pbtxt"]


class Enum(str):
    """The name of an enumeration's value, which is written without quotes."""


Message = Mapping[str, object]
"""Field → ``bool``, ``int``, ``str``, ``Enum``, a ``Message``, or a sequence of these: a repeated field."""


def pbtxt(message: Message) -> str:
    """``message`` as text, its fields in their order."""
    return "\n".join(_lines(message, "")) + "\n"


def _lines(message: Message, indent: str) -> Iterator[str]:
    for name, value in message.items():
        for one in value if isinstance(value, Sequence) and not isinstance(value, str) else (value,):
            if isinstance(one, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(one, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(one)}"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value)
    return _quoted(value) if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    """A string of the format: what is no plain ASCII is written as the octal of its UTF-8 bytes."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in text.encode("utf-8"))
    return f'"{"".join(plain)}"'
