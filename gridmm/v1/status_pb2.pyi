from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(_message.Message):
    __slots__ = ("code_version", "started_ms", "now_ms", "ready", "not_ready", "can_act", "grids", "alerts")
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    STARTED_MS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    CAN_ACT_FIELD_NUMBER: _ClassVar[int]
    GRIDS_FIELD_NUMBER: _ClassVar[int]
    ALERTS_FIELD_NUMBER: _ClassVar[int]
    code_version: str
    started_ms: int
    now_ms: int
    ready: bool
    not_ready: _containers.RepeatedScalarFieldContainer[str]
    can_act: bool
    grids: _containers.RepeatedCompositeFieldContainer[GridStatus]
    alerts: _containers.RepeatedCompositeFieldContainer[Alert]
    def __init__(self, code_version: _Optional[str] = ..., started_ms: _Optional[int] = ..., now_ms: _Optional[int] = ..., ready: _Optional[bool] = ..., not_ready: _Optional[_Iterable[str]] = ..., can_act: _Optional[bool] = ..., grids: _Optional[_Iterable[_Union[GridStatus, _Mapping]]] = ..., alerts: _Optional[_Iterable[_Union[Alert, _Mapping]]] = ...) -> None: ...

class GridStatus(_message.Message):
    __slots__ = ("grid", "symbol", "engine", "exchange", "quote", "base", "time_ms", "looked_ms", "bid", "ask", "last", "center", "price_age_ms", "version", "incarnation", "epoch", "realized_pnl", "unrealized_pnl", "inventory_skew", "active_slots", "position", "max_position", "parts", "risk_mode", "triggers", "stop", "ladder", "orders", "holes", "outcomes", "streams", "traffic", "fills", "round_trips", "decisions", "defects", "last_decisions", "last_fills", "history", "commands", "loop_age_ms", "doubtful")
    GRID_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_FIELD_NUMBER: _ClassVar[int]
    QUOTE_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LOOKED_MS_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    PRICE_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REALIZED_PNL_FIELD_NUMBER: _ClassVar[int]
    UNREALIZED_PNL_FIELD_NUMBER: _ClassVar[int]
    INVENTORY_SKEW_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITION_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    RISK_MODE_FIELD_NUMBER: _ClassVar[int]
    TRIGGERS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    LADDER_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    FILLS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIPS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    DEFECTS_FIELD_NUMBER: _ClassVar[int]
    LAST_DECISIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_FILLS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    LOOP_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    DOUBTFUL_FIELD_NUMBER: _ClassVar[int]
    grid: str
    symbol: str
    engine: str
    exchange: str
    quote: str
    base: str
    time_ms: int
    looked_ms: int
    bid: str
    ask: str
    last: str
    center: str
    price_age_ms: int
    version: int
    incarnation: int
    epoch: int
    realized_pnl: str
    unrealized_pnl: str
    inventory_skew: str
    active_slots: int
    position: str
    max_position: str
    parts: PnlParts
    risk_mode: str
    triggers: _containers.RepeatedCompositeFieldContainer[TriggerStatus]
    stop: str
    ladder: _containers.RepeatedCompositeFieldContainer[RungStatus]
    orders: OrderCounts
    holes: _containers.RepeatedCompositeFieldContainer[Count]
    outcomes: _containers.RepeatedCompositeFieldContainer[Count]
    streams: _containers.RepeatedCompositeFieldContainer[StreamStatus]
    traffic: Traffic
    fills: int
    round_trips: int
    decisions: int
    defects: int
    last_decisions: _containers.RepeatedCompositeFieldContainer[DecisionStatus]
    last_fills: _containers.RepeatedCompositeFieldContainer[FillStatus]
    history: _containers.RepeatedCompositeFieldContainer[Sample]
    commands: _containers.RepeatedCompositeFieldContainer[CommandStatus]
    loop_age_ms: int
    doubtful: _containers.RepeatedCompositeFieldContainer[DoubtfulSlot]
    def __init__(self, grid: _Optional[str] = ..., symbol: _Optional[str] = ..., engine: _Optional[str] = ..., exchange: _Optional[str] = ..., quote: _Optional[str] = ..., base: _Optional[str] = ..., time_ms: _Optional[int] = ..., looked_ms: _Optional[int] = ..., bid: _Optional[str] = ..., ask: _Optional[str] = ..., last: _Optional[str] = ..., center: _Optional[str] = ..., price_age_ms: _Optional[int] = ..., version: _Optional[int] = ..., incarnation: _Optional[int] = ..., epoch: _Optional[int] = ..., realized_pnl: _Optional[str] = ..., unrealized_pnl: _Optional[str] = ..., inventory_skew: _Optional[str] = ..., active_slots: _Optional[int] = ..., position: _Optional[str] = ..., max_position: _Optional[str] = ..., parts: _Optional[_Union[PnlParts, _Mapping]] = ..., risk_mode: _Optional[str] = ..., triggers: _Optional[_Iterable[_Union[TriggerStatus, _Mapping]]] = ..., stop: _Optional[str] = ..., ladder: _Optional[_Iterable[_Union[RungStatus, _Mapping]]] = ..., orders: _Optional[_Union[OrderCounts, _Mapping]] = ..., holes: _Optional[_Iterable[_Union[Count, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[Count, _Mapping]]] = ..., streams: _Optional[_Iterable[_Union[StreamStatus, _Mapping]]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., fills: _Optional[int] = ..., round_trips: _Optional[int] = ..., decisions: _Optional[int] = ..., defects: _Optional[int] = ..., last_decisions: _Optional[_Iterable[_Union[DecisionStatus, _Mapping]]] = ..., last_fills: _Optional[_Iterable[_Union[FillStatus, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[Sample, _Mapping]]] = ..., commands: _Optional[_Iterable[_Union[CommandStatus, _Mapping]]] = ..., loop_age_ms: _Optional[int] = ..., doubtful: _Optional[_Iterable[_Union[DoubtfulSlot, _Mapping]]] = ...) -> None: ...

class PnlParts(_message.Message):
    __slots__ = ("harvest", "trend", "fees", "funding", "residual")
    HARVEST_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    FEES_FIELD_NUMBER: _ClassVar[int]
    FUNDING_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    harvest: str
    trend: str
    fees: str
    funding: str
    residual: str
    def __init__(self, harvest: _Optional[str] = ..., trend: _Optional[str] = ..., fees: _Optional[str] = ..., funding: _Optional[str] = ..., residual: _Optional[str] = ...) -> None: ...

class TriggerStatus(_message.Message):
    __slots__ = ("name", "value", "limit", "unit", "active", "since_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    limit: str
    unit: str
    active: bool
    since_ms: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., limit: _Optional[str] = ..., unit: _Optional[str] = ..., active: _Optional[bool] = ..., since_ms: _Optional[int] = ...) -> None: ...

class RungStatus(_message.Message):
    __slots__ = ("cell", "low", "high", "held", "order", "price", "quantity", "slot_status", "why")
    CELL_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    SLOT_STATUS_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    cell: int
    low: str
    high: str
    held: str
    order: str
    price: str
    quantity: str
    slot_status: str
    why: str
    def __init__(self, cell: _Optional[int] = ..., low: _Optional[str] = ..., high: _Optional[str] = ..., held: _Optional[str] = ..., order: _Optional[str] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., slot_status: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class OrderCounts(_message.Message):
    __slots__ = ("pending", "unknown", "working")
    PENDING_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    WORKING_FIELD_NUMBER: _ClassVar[int]
    pending: int
    unknown: int
    working: int
    def __init__(self, pending: _Optional[int] = ..., unknown: _Optional[int] = ..., working: _Optional[int] = ...) -> None: ...

class Count(_message.Message):
    __slots__ = ("name", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    count: int
    def __init__(self, name: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("name", "silent_ms")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SILENT_MS_FIELD_NUMBER: _ClassVar[int]
    name: str
    silent_ms: int
    def __init__(self, name: _Optional[str] = ..., silent_ms: _Optional[int] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("requests", "budget_left_pct", "orders_per_fill", "late", "throttles", "cuts", "bad_frames", "banned")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_PCT_FIELD_NUMBER: _ClassVar[int]
    ORDERS_PER_FILL_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    THROTTLES_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    BAD_FRAMES_FIELD_NUMBER: _ClassVar[int]
    BANNED_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[Count]
    budget_left_pct: int
    orders_per_fill: str
    late: int
    throttles: int
    cuts: int
    bad_frames: int
    banned: bool
    def __init__(self, requests: _Optional[_Iterable[_Union[Count, _Mapping]]] = ..., budget_left_pct: _Optional[int] = ..., orders_per_fill: _Optional[str] = ..., late: _Optional[int] = ..., throttles: _Optional[int] = ..., cuts: _Optional[int] = ..., bad_frames: _Optional[int] = ..., banned: _Optional[bool] = ...) -> None: ...

class DecisionStatus(_message.Message):
    __slots__ = ("sequence", "time_ms", "bid", "ask", "actions")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    BID_FIELD_NUMBER: _ClassVar[int]
    ASK_FIELD_NUMBER: _ClassVar[int]
    ACTIONS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_ms: int
    bid: str
    ask: str
    actions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., time_ms: _Optional[int] = ..., bid: _Optional[str] = ..., ask: _Optional[str] = ..., actions: _Optional[_Iterable[str]] = ...) -> None: ...

class FillStatus(_message.Message):
    __slots__ = ("time_ms", "side", "price", "quantity", "pnl")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_FIELD_NUMBER: _ClassVar[int]
    PNL_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    side: str
    price: str
    quantity: str
    pnl: str
    def __init__(self, time_ms: _Optional[int] = ..., side: _Optional[str] = ..., price: _Optional[str] = ..., quantity: _Optional[str] = ..., pnl: _Optional[str] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("time_ms", "last", "realized", "total")
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    REALIZED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    time_ms: int
    last: str
    realized: str
    total: str
    def __init__(self, time_ms: _Optional[int] = ..., last: _Optional[str] = ..., realized: _Optional[str] = ..., total: _Optional[str] = ...) -> None: ...

class CommandStatus(_message.Message):
    __slots__ = ("sent_ms", "asked", "who", "why", "state", "result")
    SENT_MS_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    sent_ms: int
    asked: str
    who: str
    why: str
    state: str
    result: str
    def __init__(self, sent_ms: _Optional[int] = ..., asked: _Optional[str] = ..., who: _Optional[str] = ..., why: _Optional[str] = ..., state: _Optional[str] = ..., result: _Optional[str] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("name", "grid", "severity", "text", "runbook")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GRID_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RUNBOOK_FIELD_NUMBER: _ClassVar[int]
    name: str
    grid: str
    severity: str
    text: str
    runbook: str
    def __init__(self, name: _Optional[str] = ..., grid: _Optional[str] = ..., severity: _Optional[str] = ..., text: _Optional[str] = ..., runbook: _Optional[str] = ...) -> None: ...

class DoubtfulSlot(_message.Message):
    __slots__ = ("slot", "order", "status", "age_ms")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    slot: str
    order: str
    status: str
    age_ms: int
    def __init__(self, slot: _Optional[str] = ..., order: _Optional[str] = ..., status: _Optional[str] = ..., age_ms: _Optional[int] = ...) -> None: ...
