"""The messages of `exchange_wire.proto`, compiled when first used, and the way from our classes to them and back."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc

from gridmm.exchange import (
    Absent,
    Accepted,
    Balance,
    Fill,
    Funding,
    NotSent,
    OrderReport,
    OrderRequest,
    Position,
    Rejected,
    Unknown,
)
from gridmm.feed import Candle, Moment
from gridmm.units import Instrument

SOURCE = Path(__file__).with_name("exchange_wire.proto")
CLASSES = (
    Instrument, Balance, Position, OrderRequest, Accepted, Rejected, NotSent, Unknown, OrderReport, Absent, Fill,
    Funding, Moment,
)  # fmt: skip
_CLASS = {cls.__name__: cls for cls in (*CLASSES, Candle)}


@cache
def wire() -> SimpleNamespace:
    """Return the message classes by name.

    Raises:
        RuntimeError: The schema does not compile; the compiler says on stderr where.
    """
    with tempfile.TemporaryDirectory(prefix="gridmm-wire-") as folder:
        out = Path(folder) / "wire.bin"
        words = ["protoc", f"-I{SOURCE.parent}", f"--descriptor_set_out={out}", str(SOURCE)]
        if protoc.main(words):
            raise RuntimeError(f"{SOURCE.name} does not compile: mend the line that was named")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    classes = message_factory.GetMessages(files)
    return SimpleNamespace(**{name.rpartition(".")[2]: made for name, made in classes.items()})


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _fields(thing: Any) -> Iterable[str]:
    return (f.name for f in dataclasses.fields(thing)) if dataclasses.is_dataclass(thing) else thing._fields


def pack(thing: Any) -> Message:
    """Return one of our objects as the message of its class's name."""
    message: Any = getattr(wire(), type(thing).__name__)()
    for name in _fields(thing):
        value = getattr(thing, name)
        if value is None:
            continue
        if isinstance(value, tuple):
            getattr(message, name).extend(pack(part) for part in value)
        else:
            setattr(message, name, f"{value:f}" if isinstance(value, Decimal) else value)
    return message


def unpack(message: Any) -> Any:
    """Return the object that `pack` made the message from."""
    cls = _CLASS[message.DESCRIPTOR.name]
    values = {}
    for name, kind in _hints(cls).items():
        value = getattr(message, name)
        if kind == Decimal | None:
            value = Decimal(value) if message.HasField(name) else None
        elif kind is Decimal or (isinstance(kind, type) and issubclass(kind, StrEnum)):
            value = kind(value)
        elif not isinstance(value, (str, int, bool)):
            value = tuple(unpack(part) for part in value)
        values[name] = value
    return cls(**values)


def thing(one: Any) -> Any:
    """Return one of our objects as a `Thing`."""
    packed = pack(one)
    descriptor = wire().Thing.DESCRIPTOR
    (name,) = (f.name for f in descriptor.fields if f.message_type.name == packed.DESCRIPTOR.name)
    return wire().Thing(**{name: packed})


def opened(box: Any) -> Any:
    """Return what is in a `Thing`."""
    return unpack(getattr(box, box.WhichOneof("kind")))
