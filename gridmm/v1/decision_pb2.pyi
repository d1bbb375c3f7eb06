from gridmm.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DecisionRecord(_message.Message):
    __slots__ = ("sequence", "symbol", "time_ms", "event_sequence", "hash_before", "hash_after", "rows", "holes", "bid_ticks", "ask_ticks", "pivot", "risk_mode")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    EVENT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HASH_BEFORE_FIELD_NUMBER: _ClassVar[int]
    HASH_AFTER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    BID_TICKS_FIELD_NUMBER: _ClassVar[int]
    ASK_TICKS_FIELD_NUMBER: _ClassVar[int]
    PIVOT_FIELD_NUMBER: _ClassVar[int]
    RISK_MODE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    symbol: str
    time_ms: int
    event_sequence: int
    hash_before: str
    hash_after: str
    rows: _containers.RepeatedCompositeFieldContainer[PlanRow]
    holes: _containers.RepeatedCompositeFieldContainer[HoleRun]
    bid_ticks: int
    ask_ticks: int
    pivot: int
    risk_mode: _vocabulary_pb2.RiskMode
    def __init__(self, sequence: _Optional[int] = ..., symbol: _Optional[str] = ..., time_ms: _Optional[int] = ..., event_sequence: _Optional[int] = ..., hash_before: _Optional[str] = ..., hash_after: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PlanRow, _Mapping]]] = ..., holes: _Optional[_Iterable[_Union[HoleRun, _Mapping]]] = ..., bid_ticks: _Optional[int] = ..., ask_ticks: _Optional[int] = ..., pivot: _Optional[int] = ..., risk_mode: _Optional[_Union[_vocabulary_pb2.RiskMode, str]] = ...) -> None: ...

class PlanRow(_message.Message):
    __slots__ = ("action", "client_id", "sequence", "epoch", "cell", "direction", "leg", "side", "price_ticks", "quantity_lots", "post_only", "reduce_only", "immediate", "reason")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    LEG_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_TICKS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_LOTS_FIELD_NUMBER: _ClassVar[int]
    POST_ONLY_FIELD_NUMBER: _ClassVar[int]
    REDUCE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IMMEDIATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    action: _vocabulary_pb2.Action
    client_id: str
    sequence: int
    epoch: int
    cell: int
    direction: _vocabulary_pb2.Direction
    leg: _vocabulary_pb2.LegName
    side: _vocabulary_pb2.Side
    price_ticks: int
    quantity_lots: int
    post_only: int
    reduce_only: int
    immediate: int
    reason: _vocabulary_pb2.Reason
    def __init__(self, action: _Optional[_Union[_vocabulary_pb2.Action, str]] = ..., client_id: _Optional[str] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., cell: _Optional[int] = ..., direction: _Optional[_Union[_vocabulary_pb2.Direction, str]] = ..., leg: _Optional[_Union[_vocabulary_pb2.LegName, str]] = ..., side: _Optional[_Union[_vocabulary_pb2.Side, str]] = ..., price_ticks: _Optional[int] = ..., quantity_lots: _Optional[int] = ..., post_only: _Optional[int] = ..., reduce_only: _Optional[int] = ..., immediate: _Optional[int] = ..., reason: _Optional[_Union[_vocabulary_pb2.Reason, str]] = ...) -> None: ...

class HoleRun(_message.Message):
    __slots__ = ("direction", "reason", "first_cell", "last_cell")
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIRST_CELL_FIELD_NUMBER: _ClassVar[int]
    LAST_CELL_FIELD_NUMBER: _ClassVar[int]
    direction: _vocabulary_pb2.Direction
    reason: _vocabulary_pb2.Reason
    first_cell: int
    last_cell: int
    def __init__(self, direction: _Optional[_Union[_vocabulary_pb2.Direction, str]] = ..., reason: _Optional[_Union[_vocabulary_pb2.Reason, str]] = ..., first_cell: _Optional[int] = ..., last_cell: _Optional[int] = ...) -> None: ...
