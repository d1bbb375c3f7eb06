from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class SegmentHeader(_message.Message):
    __slots__ = ("format_version", "symbol", "segment", "first_sequence", "state_version", "state_hash", "incarnation", "code_version", "config_hash", "event_size", "opened_ms", "state", "parameters", "config", "price", "over_file", "of_market")
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_HASH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    EVENT_SIZE_FIELD_NUMBER: _ClassVar[int]
    OPENED_MS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    OVER_FILE_FIELD_NUMBER: _ClassVar[int]
    OF_MARKET_FIELD_NUMBER: _ClassVar[int]
    format_version: int
    symbol: str
    segment: int
    first_sequence: int
    state_version: int
    state_hash: str
    incarnation: int
    code_version: str
    config_hash: str
    event_size: int
    opened_ms: int
    state: bytes
    parameters: _containers.RepeatedScalarFieldContainer[int]
    config: str
    price: str
    over_file: _containers.RepeatedScalarFieldContainer[str]
    of_market: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, format_version: _Optional[int] = ..., symbol: _Optional[str] = ..., segment: _Optional[int] = ..., first_sequence: _Optional[int] = ..., state_version: _Optional[int] = ..., state_hash: _Optional[str] = ..., incarnation: _Optional[int] = ..., code_version: _Optional[str] = ..., config_hash: _Optional[str] = ..., event_size: _Optional[int] = ..., opened_ms: _Optional[int] = ..., state: _Optional[bytes] = ..., parameters: _Optional[_Iterable[int]] = ..., config: _Optional[str] = ..., price: _Optional[str] = ..., over_file: _Optional[_Iterable[str]] = ..., of_market: _Optional[_Iterable[str]] = ...) -> None: ...
