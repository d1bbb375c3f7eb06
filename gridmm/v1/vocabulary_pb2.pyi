from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_LONG: _ClassVar[Direction]
    DIRECTION_SHORT: _ClassVar[Direction]

class Side(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIDE_UNSPECIFIED: _ClassVar[Side]
    SIDE_BUY: _ClassVar[Side]
    SIDE_SELL: _ClassVar[Side]

class LegName(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEG_NAME_UNSPECIFIED: _ClassVar[LegName]
    LEG_NAME_OPEN: _ClassVar[LegName]
    LEG_NAME_CLOSE: _ClassVar[LegName]

class SlotStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SLOT_STATUS_UNSPECIFIED: _ClassVar[SlotStatus]
    SLOT_STATUS_FREE: _ClassVar[SlotStatus]
    SLOT_STATUS_PENDING: _ClassVar[SlotStatus]
    SLOT_STATUS_LOCKED: _ClassVar[SlotStatus]

class PositionStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POSITION_STATUS_UNSPECIFIED: _ClassVar[PositionStatus]
    POSITION_STATUS_EMPTY: _ClassVar[PositionStatus]
    POSITION_STATUS_FILLED: _ClassVar[PositionStatus]
    POSITION_STATUS_DUST: _ClassVar[PositionStatus]

class OrderStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORDER_STATUS_UNSPECIFIED: _ClassVar[OrderStatus]
    ORDER_STATUS_PENDING: _ClassVar[OrderStatus]
    ORDER_STATUS_UNKNOWN: _ClassVar[OrderStatus]
    ORDER_STATUS_WORKING: _ClassVar[OrderStatus]
    ORDER_STATUS_TERMINAL: _ClassVar[OrderStatus]
    ORDER_STATUS_GONE: _ClassVar[OrderStatus]

class RiskMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RISK_MODE_UNSPECIFIED: _ClassVar[RiskMode]
    RISK_MODE_NORMAL: _ClassVar[RiskMode]
    RISK_MODE_REDUCE_ONLY: _ClassVar[RiskMode]
    RISK_MODE_HALTED: _ClassVar[RiskMode]

class StopMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_MODE_UNSPECIFIED: _ClassVar[StopMode]
    STOP_MODE_RUN: _ClassVar[StopMode]
    STOP_MODE_DRAIN: _ClassVar[StopMode]
    STOP_MODE_CANCEL: _ClassVar[StopMode]
    STOP_MODE_FLATTEN: _ClassVar[StopMode]

class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACTION_UNSPECIFIED: _ClassVar[Action]
    ACTION_CANCEL: _ClassVar[Action]
    ACTION_PLACE: _ClassVar[Action]
    ACTION_QUERY: _ClassVar[Action]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_STOPPING: _ClassVar[Reason]
    REASON_RISK: _ClassVar[Reason]
    REASON_NO_PRICE: _ClassVar[Reason]
    REASON_EPOCH: _ClassVar[Reason]
    REASON_FEE_FLOOR: _ClassVar[Reason]
    REASON_OUTSIDE: _ClassVar[Reason]
    REASON_SKEW: _ClassVar[Reason]
    REASON_TREND: _ClassVar[Reason]
    REASON_PRICE_BOUNDS: _ClassVar[Reason]
    REASON_SIDE: _ClassVar[Reason]
    REASON_NOTIONAL: _ClassVar[Reason]
    REASON_OCCUPIED: _ClassVar[Reason]
    REASON_CAP: _ClassVar[Reason]
    REASON_PARKED: _ClassVar[Reason]
    REASON_DUST: _ClassVar[Reason]
    REASON_TOUCHED: _ClassVar[Reason]
    REASON_UNRESOLVED: _ClassVar[Reason]
    REASON_BACKOFF: _ClassVar[Reason]
    REASON_POST_ONLY_BACKOFF: _ClassVar[Reason]
    REASON_WOULD_CROSS: _ClassVar[Reason]
    REASON_SELF_CROSS: _ClassVar[Reason]
    REASON_CAP_WAIT: _ClassVar[Reason]
    REASON_BUDGET: _ClassVar[Reason]
    REASON_ORDER_LIMIT: _ClassVar[Reason]
    REASON_CAPACITY: _ClassVar[Reason]
    REASON_REPRICE: _ClassVar[Reason]
    REASON_FUNDS: _ClassVar[Reason]
    REASON_FILTER: _ClassVar[Reason]
    REASON_RATE_LIMIT: _ClassVar[Reason]
    REASON_OTHER: _ClassVar[Reason]
    REASON_FEE_DUST: _ClassVar[Reason]
    REASON_ALLOWANCE: _ClassVar[Reason]

class Trigger(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRIGGER_UNSPECIFIED: _ClassVar[Trigger]
    TRIGGER_OPERATOR: _ClassVar[Trigger]
    TRIGGER_VOLUME_SPIKE: _ClassVar[Trigger]
    TRIGGER_ATR_SPIKE: _ClassVar[Trigger]
    TRIGGER_DRAWDOWN: _ClassVar[Trigger]
    TRIGGER_STOP_LOSS: _ClassVar[Trigger]
    TRIGGER_TAKE_PROFIT: _ClassVar[Trigger]
    TRIGGER_LOSING_CELLS: _ClassVar[Trigger]
    TRIGGER_LOSING_EXITS: _ClassVar[Trigger]
    TRIGGER_QUOTE_EXPOSURE: _ClassVar[Trigger]
    TRIGGER_STALE_PRICE: _ClassVar[Trigger]
    TRIGGER_STALE_USER: _ClassVar[Trigger]
    TRIGGER_MISMATCH: _ClassVar[Trigger]
    TRIGGER_REJECTS: _ClassVar[Trigger]
    TRIGGER_ERRORS: _ClassVar[Trigger]
    TRIGGER_CLOCK_SKEW: _ClassVar[Trigger]
    TRIGGER_LIQUIDATION: _ClassVar[Trigger]
    TRIGGER_STRAY_ORDER: _ClassVar[Trigger]
    TRIGGER_LATE_FILL: _ClassVar[Trigger]
    TRIGGER_ABSENT_ORDER: _ClassVar[Trigger]
    TRIGGER_RESIDUAL: _ClassVar[Trigger]
DIRECTION_UNSPECIFIED: Direction
DIRECTION_LONG: Direction
DIRECTION_SHORT: Direction
SIDE_UNSPECIFIED: Side
SIDE_BUY: Side
SIDE_SELL: Side
LEG_NAME_UNSPECIFIED: LegName
LEG_NAME_OPEN: LegName
LEG_NAME_CLOSE: LegName
SLOT_STATUS_UNSPECIFIED: SlotStatus
SLOT_STATUS_FREE: SlotStatus
SLOT_STATUS_PENDING: SlotStatus
SLOT_STATUS_LOCKED: SlotStatus
POSITION_STATUS_UNSPECIFIED: PositionStatus
POSITION_STATUS_EMPTY: PositionStatus
POSITION_STATUS_FILLED: PositionStatus
POSITION_STATUS_DUST: PositionStatus
ORDER_STATUS_UNSPECIFIED: OrderStatus
ORDER_STATUS_PENDING: OrderStatus
ORDER_STATUS_UNKNOWN: OrderStatus
ORDER_STATUS_WORKING: OrderStatus
ORDER_STATUS_TERMINAL: OrderStatus
ORDER_STATUS_GONE: OrderStatus
RISK_MODE_UNSPECIFIED: RiskMode
RISK_MODE_NORMAL: RiskMode
RISK_MODE_REDUCE_ONLY: RiskMode
RISK_MODE_HALTED: RiskMode
STOP_MODE_UNSPECIFIED: StopMode
STOP_MODE_RUN: StopMode
STOP_MODE_DRAIN: StopMode
STOP_MODE_CANCEL: StopMode
STOP_MODE_FLATTEN: StopMode
ACTION_UNSPECIFIED: Action
ACTION_CANCEL: Action
ACTION_PLACE: Action
ACTION_QUERY: Action
REASON_UNSPECIFIED: Reason
REASON_STOPPING: Reason
REASON_RISK: Reason
REASON_NO_PRICE: Reason
REASON_EPOCH: Reason
REASON_FEE_FLOOR: Reason
REASON_OUTSIDE: Reason
REASON_SKEW: Reason
REASON_TREND: Reason
REASON_PRICE_BOUNDS: Reason
REASON_SIDE: Reason
REASON_NOTIONAL: Reason
REASON_OCCUPIED: Reason
REASON_CAP: Reason
REASON_PARKED: Reason
REASON_DUST: Reason
REASON_TOUCHED: Reason
REASON_UNRESOLVED: Reason
REASON_BACKOFF: Reason
REASON_POST_ONLY_BACKOFF: Reason
REASON_WOULD_CROSS: Reason
REASON_SELF_CROSS: Reason
REASON_CAP_WAIT: Reason
REASON_BUDGET: Reason
REASON_ORDER_LIMIT: Reason
REASON_CAPACITY: Reason
REASON_REPRICE: Reason
REASON_FUNDS: Reason
REASON_FILTER: Reason
REASON_RATE_LIMIT: Reason
REASON_OTHER: Reason
REASON_FEE_DUST: Reason
REASON_ALLOWANCE: Reason
TRIGGER_UNSPECIFIED: Trigger
TRIGGER_OPERATOR: Trigger
TRIGGER_VOLUME_SPIKE: Trigger
TRIGGER_ATR_SPIKE: Trigger
TRIGGER_DRAWDOWN: Trigger
TRIGGER_STOP_LOSS: Trigger
TRIGGER_TAKE_PROFIT: Trigger
TRIGGER_LOSING_CELLS: Trigger
TRIGGER_LOSING_EXITS: Trigger
TRIGGER_QUOTE_EXPOSURE: Trigger
TRIGGER_STALE_PRICE: Trigger
TRIGGER_STALE_USER: Trigger
TRIGGER_MISMATCH: Trigger
TRIGGER_REJECTS: Trigger
TRIGGER_ERRORS: Trigger
TRIGGER_CLOCK_SKEW: Trigger
TRIGGER_LIQUIDATION: Trigger
TRIGGER_STRAY_ORDER: Trigger
TRIGGER_LATE_FILL: Trigger
TRIGGER_ABSENT_ORDER: Trigger
TRIGGER_RESIDUAL: Trigger
