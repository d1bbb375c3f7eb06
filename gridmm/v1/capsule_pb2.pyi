from gridmm.v1 import decision_pb2 as _decision_pb2
from gridmm.v1 import event_log_pb2 as _event_log_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capsule(_message.Message):
    __slots__ = ("kind", "format_version", "code_version", "grid", "symbol", "around_ms", "from_ms", "to_ms", "parts", "decisions", "saved_state", "missing", "changed", "checksum")
    KIND_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    AROUND_MS_FIELD_NUMBER: _ClassVar[int]
    FROM_MS_FIELD_NUMBER: _ClassVar[int]
    TO_MS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    SAVED_STATE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    kind: str
    format_version: int
    code_version: str
    grid: str
    symbol: str
    around_ms: int
    from_ms: int
    to_ms: int
    parts: _containers.RepeatedCompositeFieldContainer[CapsulePart]
    decisions: _containers.RepeatedCompositeFieldContainer[_decision_pb2.DecisionRecord]
    saved_state: bytes
    missing: _containers.RepeatedScalarFieldContainer[str]
    changed: _containers.RepeatedScalarFieldContainer[int]
    checksum: int
    def __init__(self, kind: _Optional[str] = ..., format_version: _Optional[int] = ..., code_version: _Optional[str] = ..., grid: _Optional[str] = ..., symbol: _Optional[str] = ..., around_ms: _Optional[int] = ..., from_ms: _Optional[int] = ..., to_ms: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[CapsulePart, _Mapping]]] = ..., decisions: _Optional[_Iterable[_Union[_decision_pb2.DecisionRecord, _Mapping]]] = ..., saved_state: _Optional[bytes] = ..., missing: _Optional[_Iterable[str]] = ..., changed: _Optional[_Iterable[int]] = ..., checksum: _Optional[int] = ...) -> None: ...

class CapsulePart(_message.Message):
    __slots__ = ("head", "events_before", "decisions_before", "events", "ends")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    EVENTS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    ENDS_FIELD_NUMBER: _ClassVar[int]
    head: _event_log_pb2.SegmentHeader
    events_before: int
    decisions_before: int
    events: bytes
    ends: bool
    def __init__(self, head: _Optional[_Union[_event_log_pb2.SegmentHeader, _Mapping]] = ..., events_before: _Optional[int] = ..., decisions_before: _Optional[int] = ..., events: _Optional[bytes] = ..., ends: _Optional[bool] = ...) -> None: ...
