from gridmm.v1 import vocabulary_pb2 as _vocabulary_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(_message.Message):
    __slots__ = ("schema_version", "symbol", "version", "instance", "incarnation", "code_version", "config_hash", "instrument", "lattice", "center", "slots", "last_price", "last_update_time_ms", "market", "volatility", "trend", "risk", "pnl", "ledger", "sequences", "counters", "retired", "strays", "watched", "event_sequence", "terms", "checksum")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CODE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    INSTRUMENT_FIELD_NUMBER: _ClassVar[int]
    LATTICE_FIELD_NUMBER: _ClassVar[int]
    CENTER_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LAST_PRICE_FIELD_NUMBER: _ClassVar[int]
    LAST_UPDATE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    MARKET_FIELD_NUMBER: _ClassVar[int]
    VOLATILITY_FIELD_NUMBER: _ClassVar[int]
    TREND_FIELD_NUMBER: _ClassVar[int]
    RISK_FIELD_NUMBER: _ClassVar[int]
    PNL_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    RETIRED_FIELD_NUMBER: _ClassVar[int]
    STRAYS_FIELD_NUMBER: _ClassVar[int]
    WATCHED_FIELD_NUMBER: _ClassVar[int]
    EVENT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    symbol: str
    version: int
    instance: int
    incarnation: int
    code_version: str
    config_hash: str
    instrument: InstrumentRules
    lattice: Lattice
    center: Center
    slots: _containers.RepeatedCompositeFieldContainer[InventorySlot]
    last_price: str
    last_update_time_ms: int
    market: Market
    volatility: Volatility
    trend: Trend
    risk: RiskState
    pnl: Pnl
    ledger: Ledger
    sequences: Sequences
    counters: Counters
    retired: _containers.RepeatedCompositeFieldContainer[LooseOrder]
    strays: _containers.RepeatedCompositeFieldContainer[LooseOrder]
    watched: _containers.RepeatedCompositeFieldContainer[WatchedSymbol]
    event_sequence: int
    terms: Terms
    checksum: int
    def __init__(self, schema_version: _Optional[int] = ..., symbol: _Optional[str] = ..., version: _Optional[int] = ..., instance: _Optional[int] = ..., incarnation: _Optional[int] = ..., code_version: _Optional[str] = ..., config_hash: _Optional[str] = ..., instrument: _Optional[_Union[InstrumentRules, _Mapping]] = ..., lattice: _Optional[_Union[Lattice, _Mapping]] = ..., center: _Optional[_Union[Center, _Mapping]] = ..., slots: _Optional[_Iterable[_Union[InventorySlot, _Mapping]]] = ..., last_price: _Optional[str] = ..., last_update_time_ms: _Optional[int] = ..., market: _Optional[_Union[Market, _Mapping]] = ..., volatility: _Optional[_Union[Volatility, _Mapping]] = ..., trend: _Optional[_Union[Trend, _Mapping]] = ..., risk: _Optional[_Union[RiskState, _Mapping]] = ..., pnl: _Optional[_Union[Pnl, _Mapping]] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., sequences: _Optional[_Union[Sequences, _Mapping]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., retired: _Optional[_Iterable[_Union[LooseOrder, _Mapping]]] = ..., strays: _Optional[_Iterable[_Union[LooseOrder, _Mapping]]] = ..., watched: _Optional[_Iterable[_Union[WatchedSymbol, _Mapping]]] = ..., event_sequence: _Optional[int] = ..., terms: _Optional[_Union[Terms, _Mapping]] = ..., checksum: _Optional[int] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("max_position_lots", "target_lots")
    MAX_POSITION_LOTS_FIELD_NUMBER: _ClassVar[int]
    TARGET_LOTS_FIELD_NUMBER: _ClassVar[int]
    max_position_lots: int
    target_lots: int
    def __init__(self, max_position_lots: _Optional[int] = ..., target_lots: _Optional[int] = ...) -> None: ...

class InstrumentRules(_message.Message):
    __slots__ = ("market", "tick", "lot", "min_quantity", "min_notional", "maker_fee_ppm", "taker_fee_ppm", "multiplier")
    MARKET_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    LOT_FIELD_NUMBER: _ClassVar[int]
    MIN_QUANTITY_FIELD_NUMBER: _ClassVar[int]
    MIN_NOTIONAL_FIELD_NUMBER: _ClassVar[int]
    MAKER_FEE_PPM_FIELD_NUMBER: _ClassVar[int]
    TAKER_FEE_PPM_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    market: str
    tick: str
    lot: str
    min_quantity: str
    min_notional: str
    maker_fee_ppm: int
    taker_fee_ppm: int
    multiplier: str
    def __init__(self, market: _Optional[str] = ..., tick: _Optional[str] = ..., lot: _Optional[str] = ..., min_quantity: _Optional[str] = ..., min_notional: _Optional[str] = ..., maker_fee_ppm: _Optional[int] = ..., taker_fee_ppm: _Optional[int] = ..., multiplier: _Optional[str] = ...) -> None: ...

class Lattice(_message.Message):
    __slots__ = ("epoch", "anchor_ticks", "interval", "geometric", "first_cell", "cells", "withdrawing", "next_interval", "ref_ticks", "epoch_ms")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_TICKS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    GEOMETRIC_FIELD_NUMBER: _ClassVar[int]
    FIRST_CELL_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWING_FIELD_NUMBER: _ClassVar[int]
    NEXT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    REF_TICKS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_MS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    anchor_ticks: int
    interval: int
    geometric: bool
    first_cell: int
    cells: int
    withdrawing: int
    next_interval: int
    ref_ticks: int
    epoch_ms: int
    def __init__(self, epoch: _Optional[int] = ..., anchor_ticks: _Optional[int] = ..., interval: _Optional[int] = ..., geometric: _Optional[bool] = ..., first_cell: _Optional[int] = ..., cells: _Optional[int] = ..., withdrawing: _Optional[int] = ..., next_interval: _Optional[int] = ..., ref_ticks: _Optional[int] = ..., epoch_ms: _Optional[int] = ...) -> None: ...

class Center(_message.Message):
    __slots__ = ("pivot", "buy_base", "sell_base", "sign", "sign_ms")
    PIVOT_FIELD_NUMBER: _ClassVar[int]
    BUY_BASE_FIELD_NUMBER: _ClassVar[int]
    SELL_BASE_FIELD_NUMBER: _ClassVar[int]
    SIGN_FIELD_NUMBER: _ClassVar[int]
    SIGN_MS_FIELD_NUMBER: _ClassVar[int]
    pivot: int
    buy_base: int
    sell_base: int
    sign: int
    sign_ms: int
    def __init__(self, pivot: _Optional[int] = ..., buy_base: _Optional[int] = ..., sell_base: _Optional[int] = ..., sign: _Optional[int] = ..., sign_ms: _Optional[int] = ...) -> None: ...

class InventorySlot(_message.Message):
    __slots__ = ("epoch", "cell", "direction", "slot_status", "position_status", "position_qty", "lo_ticks", "hi_ticks", "quantity_lots", "opened_lots", "closed_lots", "exited_lots", "open", "close", "reason", "close_reason", "close_touch_ms")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    SLOT_STATUS_FIELD_NUMBER: _ClassVar[int]
    POSITION_STATUS_FIELD_NUMBER: _ClassVar[int]
    POSITION_QTY_FIELD_NUMBER: _ClassVar[int]
    LO_TICKS_FIELD_NUMBER: _ClassVar[int]
    HI_TICKS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_LOTS_FIELD_NUMBER: _ClassVar[int]
    OPENED_LOTS_FIELD_NUMBER: _ClassVar[int]
    CLOSED_LOTS_FIELD_NUMBER: _ClassVar[int]
    EXITED_LOTS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CLOSE_REASON_FIELD_NUMBER: _ClassVar[int]
    CLOSE_TOUCH_MS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    cell: int
    direction: _vocabulary_pb2.Direction
    slot_status: _vocabulary_pb2.SlotStatus
    position_status: _vocabulary_pb2.PositionStatus
    position_qty: int
    lo_ticks: int
    hi_ticks: int
    quantity_lots: int
    opened_lots: int
    closed_lots: int
    exited_lots: int
    open: SlotOrder
    close: SlotOrder
    reason: _vocabulary_pb2.Reason
    close_reason: _vocabulary_pb2.Reason
    close_touch_ms: int
    def __init__(self, epoch: _Optional[int] = ..., cell: _Optional[int] = ..., direction: _Optional[_Union[_vocabulary_pb2.Direction, str]] = ..., slot_status: _Optional[_Union[_vocabulary_pb2.SlotStatus, str]] = ..., position_status: _Optional[_Union[_vocabulary_pb2.PositionStatus, str]] = ..., position_qty: _Optional[int] = ..., lo_ticks: _Optional[int] = ..., hi_ticks: _Optional[int] = ..., quantity_lots: _Optional[int] = ..., opened_lots: _Optional[int] = ..., closed_lots: _Optional[int] = ..., exited_lots: _Optional[int] = ..., open: _Optional[_Union[SlotOrder, _Mapping]] = ..., close: _Optional[_Union[SlotOrder, _Mapping]] = ..., reason: _Optional[_Union[_vocabulary_pb2.Reason, str]] = ..., close_reason: _Optional[_Union[_vocabulary_pb2.Reason, str]] = ..., close_touch_ms: _Optional[int] = ...) -> None: ...

class SlotOrder(_message.Message):
    __slots__ = ("client_id", "exchange_id", "sequence", "side", "price_ticks", "quantity_lots", "cumulative_lots", "traded_lots", "status", "cancel_requested", "exit", "rejects", "reason", "reject_touch", "intent_ms", "retry_ms", "query_ms")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_TICKS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_LOTS_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_LOTS_FIELD_NUMBER: _ClassVar[int]
    TRADED_LOTS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REJECT_TOUCH_FIELD_NUMBER: _ClassVar[int]
    INTENT_MS_FIELD_NUMBER: _ClassVar[int]
    RETRY_MS_FIELD_NUMBER: _ClassVar[int]
    QUERY_MS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    exchange_id: str
    sequence: int
    side: _vocabulary_pb2.Side
    price_ticks: int
    quantity_lots: int
    cumulative_lots: int
    traded_lots: int
    status: _vocabulary_pb2.OrderStatus
    cancel_requested: int
    exit: int
    rejects: int
    reason: _vocabulary_pb2.Reason
    reject_touch: int
    intent_ms: int
    retry_ms: int
    query_ms: int
    def __init__(self, client_id: _Optional[str] = ..., exchange_id: _Optional[str] = ..., sequence: _Optional[int] = ..., side: _Optional[_Union[_vocabulary_pb2.Side, str]] = ..., price_ticks: _Optional[int] = ..., quantity_lots: _Optional[int] = ..., cumulative_lots: _Optional[int] = ..., traded_lots: _Optional[int] = ..., status: _Optional[_Union[_vocabulary_pb2.OrderStatus, str]] = ..., cancel_requested: _Optional[int] = ..., exit: _Optional[int] = ..., rejects: _Optional[int] = ..., reason: _Optional[_Union[_vocabulary_pb2.Reason, str]] = ..., reject_touch: _Optional[int] = ..., intent_ms: _Optional[int] = ..., retry_ms: _Optional[int] = ..., query_ms: _Optional[int] = ...) -> None: ...

class LooseOrder(_message.Message):
    __slots__ = ("client_id", "exchange_id", "sequence", "epoch", "cell", "direction", "leg", "exit", "side", "price_ticks", "quantity_lots", "cumulative_lots", "traded_lots", "lo_ticks", "hi_ticks", "status", "cancel_requested")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    LEG_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_TICKS_FIELD_NUMBER: _ClassVar[int]
    QUANTITY_LOTS_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_LOTS_FIELD_NUMBER: _ClassVar[int]
    TRADED_LOTS_FIELD_NUMBER: _ClassVar[int]
    LO_TICKS_FIELD_NUMBER: _ClassVar[int]
    HI_TICKS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    exchange_id: str
    sequence: int
    epoch: int
    cell: int
    direction: _vocabulary_pb2.Direction
    leg: _vocabulary_pb2.LegName
    exit: int
    side: _vocabulary_pb2.Side
    price_ticks: int
    quantity_lots: int
    cumulative_lots: int
    traded_lots: int
    lo_ticks: int
    hi_ticks: int
    status: _vocabulary_pb2.OrderStatus
    cancel_requested: int
    def __init__(self, client_id: _Optional[str] = ..., exchange_id: _Optional[str] = ..., sequence: _Optional[int] = ..., epoch: _Optional[int] = ..., cell: _Optional[int] = ..., direction: _Optional[_Union[_vocabulary_pb2.Direction, str]] = ..., leg: _Optional[_Union[_vocabulary_pb2.LegName, str]] = ..., exit: _Optional[int] = ..., side: _Optional[_Union[_vocabulary_pb2.Side, str]] = ..., price_ticks: _Optional[int] = ..., quantity_lots: _Optional[int] = ..., cumulative_lots: _Optional[int] = ..., traded_lots: _Optional[int] = ..., lo_ticks: _Optional[int] = ..., hi_ticks: _Optional[int] = ..., status: _Optional[_Union[_vocabulary_pb2.OrderStatus, str]] = ..., cancel_requested: _Optional[int] = ...) -> None: ...

class Market(_message.Message):
    __slots__ = ("bid_ticks", "ask_ticks", "last_ticks", "mark_half_ticks", "touches", "bid_lots", "ask_lots", "price_ms", "now_ms")
    BID_TICKS_FIELD_NUMBER: _ClassVar[int]
    ASK_TICKS_FIELD_NUMBER: _ClassVar[int]
    LAST_TICKS_FIELD_NUMBER: _ClassVar[int]
    MARK_HALF_TICKS_FIELD_NUMBER: _ClassVar[int]
    TOUCHES_FIELD_NUMBER: _ClassVar[int]
    BID_LOTS_FIELD_NUMBER: _ClassVar[int]
    ASK_LOTS_FIELD_NUMBER: _ClassVar[int]
    PRICE_MS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    bid_ticks: int
    ask_ticks: int
    last_ticks: int
    mark_half_ticks: int
    touches: int
    bid_lots: int
    ask_lots: int
    price_ms: int
    now_ms: int
    def __init__(self, bid_ticks: _Optional[int] = ..., ask_ticks: _Optional[int] = ..., last_ticks: _Optional[int] = ..., mark_half_ticks: _Optional[int] = ..., touches: _Optional[int] = ..., bid_lots: _Optional[int] = ..., ask_lots: _Optional[int] = ..., price_ms: _Optional[int] = ..., now_ms: _Optional[int] = ...) -> None: ...

class Volatility(_message.Message):
    __slots__ = ("candles", "prev_close_ticks", "atr_ticks", "atr_ref_ticks", "refs", "candle_ms", "ranges_ticks", "samples_ticks", "atr_length", "ref_length")
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    PREV_CLOSE_TICKS_FIELD_NUMBER: _ClassVar[int]
    ATR_TICKS_FIELD_NUMBER: _ClassVar[int]
    ATR_REF_TICKS_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    CANDLE_MS_FIELD_NUMBER: _ClassVar[int]
    RANGES_TICKS_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_TICKS_FIELD_NUMBER: _ClassVar[int]
    ATR_LENGTH_FIELD_NUMBER: _ClassVar[int]
    REF_LENGTH_FIELD_NUMBER: _ClassVar[int]
    candles: int
    prev_close_ticks: int
    atr_ticks: int
    atr_ref_ticks: int
    refs: int
    candle_ms: int
    ranges_ticks: _containers.RepeatedScalarFieldContainer[int]
    samples_ticks: _containers.RepeatedScalarFieldContainer[int]
    atr_length: int
    ref_length: int
    def __init__(self, candles: _Optional[int] = ..., prev_close_ticks: _Optional[int] = ..., atr_ticks: _Optional[int] = ..., atr_ref_ticks: _Optional[int] = ..., refs: _Optional[int] = ..., candle_ms: _Optional[int] = ..., ranges_ticks: _Optional[_Iterable[int]] = ..., samples_ticks: _Optional[_Iterable[int]] = ..., atr_length: _Optional[int] = ..., ref_length: _Optional[int] = ...) -> None: ...

class Trend(_message.Message):
    __slots__ = ("moves", "trend_on", "trend_levels", "recent")
    MOVES_FIELD_NUMBER: _ClassVar[int]
    TREND_ON_FIELD_NUMBER: _ClassVar[int]
    TREND_LEVELS_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    moves: int
    trend_on: int
    trend_levels: int
    recent: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, moves: _Optional[int] = ..., trend_on: _Optional[int] = ..., trend_levels: _Optional[int] = ..., recent: _Optional[_Iterable[int]] = ...) -> None: ...

class RiskState(_message.Message):
    __slots__ = ("mode", "stop", "triggers", "drawdown_ms", "streak", "streak_ms", "exiting", "errors", "spike_length")
    MODE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    TRIGGERS_FIELD_NUMBER: _ClassVar[int]
    DRAWDOWN_MS_FIELD_NUMBER: _ClassVar[int]
    STREAK_FIELD_NUMBER: _ClassVar[int]
    STREAK_MS_FIELD_NUMBER: _ClassVar[int]
    EXITING_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    SPIKE_LENGTH_FIELD_NUMBER: _ClassVar[int]
    mode: _vocabulary_pb2.RiskMode
    stop: _vocabulary_pb2.StopMode
    triggers: _containers.RepeatedCompositeFieldContainer[RiskTrigger]
    drawdown_ms: int
    streak: int
    streak_ms: int
    exiting: int
    errors: int
    spike_length: int
    def __init__(self, mode: _Optional[_Union[_vocabulary_pb2.RiskMode, str]] = ..., stop: _Optional[_Union[_vocabulary_pb2.StopMode, str]] = ..., triggers: _Optional[_Iterable[_Union[RiskTrigger, _Mapping]]] = ..., drawdown_ms: _Optional[int] = ..., streak: _Optional[int] = ..., streak_ms: _Optional[int] = ..., exiting: _Optional[int] = ..., errors: _Optional[int] = ..., spike_length: _Optional[int] = ...) -> None: ...

class RiskTrigger(_message.Message):
    __slots__ = ("trigger", "value", "limit", "active", "count", "since_ms", "clear_ms")
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    CLEAR_MS_FIELD_NUMBER: _ClassVar[int]
    trigger: _vocabulary_pb2.Trigger
    value: int
    limit: int
    active: int
    count: int
    since_ms: int
    clear_ms: int
    def __init__(self, trigger: _Optional[_Union[_vocabulary_pb2.Trigger, str]] = ..., value: _Optional[int] = ..., limit: _Optional[int] = ..., active: _Optional[int] = ..., count: _Optional[int] = ..., since_ms: _Optional[int] = ..., clear_ms: _Optional[int] = ...) -> None: ...

class Pnl(_message.Message):
    __slots__ = ("harvest_atoms", "execution_atoms", "exit_atoms", "fees_atoms", "funding_atoms", "fee_base_atoms")
    HARVEST_ATOMS_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ATOMS_FIELD_NUMBER: _ClassVar[int]
    EXIT_ATOMS_FIELD_NUMBER: _ClassVar[int]
    FEES_ATOMS_FIELD_NUMBER: _ClassVar[int]
    FUNDING_ATOMS_FIELD_NUMBER: _ClassVar[int]
    FEE_BASE_ATOMS_FIELD_NUMBER: _ClassVar[int]
    harvest_atoms: int
    execution_atoms: int
    exit_atoms: int
    fees_atoms: int
    funding_atoms: int
    fee_base_atoms: int
    def __init__(self, harvest_atoms: _Optional[int] = ..., execution_atoms: _Optional[int] = ..., exit_atoms: _Optional[int] = ..., fees_atoms: _Optional[int] = ..., funding_atoms: _Optional[int] = ..., fee_base_atoms: _Optional[int] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("cash_atoms", "ledger_lots", "ledger_fees_atoms", "ledger_funding_atoms", "ledger_base_atoms", "transfers_atoms", "seed_lots", "seed_mark_half_ticks", "peak_atoms", "orders", "trade_keys", "funding_keys", "start_quote_atoms", "start_base_atoms", "adopted_lots")
    CASH_ATOMS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_LOTS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FEES_ATOMS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FUNDING_ATOMS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_BASE_ATOMS_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_ATOMS_FIELD_NUMBER: _ClassVar[int]
    SEED_LOTS_FIELD_NUMBER: _ClassVar[int]
    SEED_MARK_HALF_TICKS_FIELD_NUMBER: _ClassVar[int]
    PEAK_ATOMS_FIELD_NUMBER: _ClassVar[int]
    ORDERS_FIELD_NUMBER: _ClassVar[int]
    TRADE_KEYS_FIELD_NUMBER: _ClassVar[int]
    FUNDING_KEYS_FIELD_NUMBER: _ClassVar[int]
    START_QUOTE_ATOMS_FIELD_NUMBER: _ClassVar[int]
    START_BASE_ATOMS_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_LOTS_FIELD_NUMBER: _ClassVar[int]
    cash_atoms: int
    ledger_lots: int
    ledger_fees_atoms: int
    ledger_funding_atoms: int
    ledger_base_atoms: int
    transfers_atoms: int
    seed_lots: int
    seed_mark_half_ticks: int
    peak_atoms: int
    orders: LedgerOrders
    trade_keys: _containers.RepeatedScalarFieldContainer[int]
    funding_keys: _containers.RepeatedScalarFieldContainer[int]
    start_quote_atoms: int
    start_base_atoms: int
    adopted_lots: int
    def __init__(self, cash_atoms: _Optional[int] = ..., ledger_lots: _Optional[int] = ..., ledger_fees_atoms: _Optional[int] = ..., ledger_funding_atoms: _Optional[int] = ..., ledger_base_atoms: _Optional[int] = ..., transfers_atoms: _Optional[int] = ..., seed_lots: _Optional[int] = ..., seed_mark_half_ticks: _Optional[int] = ..., peak_atoms: _Optional[int] = ..., orders: _Optional[_Union[LedgerOrders, _Mapping]] = ..., trade_keys: _Optional[_Iterable[int]] = ..., funding_keys: _Optional[_Iterable[int]] = ..., start_quote_atoms: _Optional[int] = ..., start_base_atoms: _Optional[int] = ..., adopted_lots: _Optional[int] = ...) -> None: ...

class LedgerOrders(_message.Message):
    __slots__ = ("sequence", "side", "price_ticks", "cumulative_lots", "traded_lots")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    PRICE_TICKS_FIELD_NUMBER: _ClassVar[int]
    CUMULATIVE_LOTS_FIELD_NUMBER: _ClassVar[int]
    TRADED_LOTS_FIELD_NUMBER: _ClassVar[int]
    sequence: _containers.RepeatedScalarFieldContainer[int]
    side: _containers.RepeatedScalarFieldContainer[int]
    price_ticks: _containers.RepeatedScalarFieldContainer[int]
    cumulative_lots: _containers.RepeatedScalarFieldContainer[int]
    traded_lots: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequence: _Optional[_Iterable[int]] = ..., side: _Optional[_Iterable[int]] = ..., price_ticks: _Optional[_Iterable[int]] = ..., cumulative_lots: _Optional[_Iterable[int]] = ..., traded_lots: _Optional[_Iterable[int]] = ...) -> None: ...

class Sequences(_message.Message):
    __slots__ = ("next_seq", "tokens_milli", "tokens_ms")
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    TOKENS_MILLI_FIELD_NUMBER: _ClassVar[int]
    TOKENS_MS_FIELD_NUMBER: _ClassVar[int]
    next_seq: int
    tokens_milli: int
    tokens_ms: int
    def __init__(self, next_seq: _Optional[int] = ..., tokens_milli: _Optional[int] = ..., tokens_ms: _Optional[int] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("fills", "trades", "rejects", "plans", "defects", "late", "crossings", "losing_exits", "fundings", "round_trips", "unsolicited")
    FILLS_FIELD_NUMBER: _ClassVar[int]
    TRADES_FIELD_NUMBER: _ClassVar[int]
    REJECTS_FIELD_NUMBER: _ClassVar[int]
    PLANS_FIELD_NUMBER: _ClassVar[int]
    DEFECTS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    CROSSINGS_FIELD_NUMBER: _ClassVar[int]
    LOSING_EXITS_FIELD_NUMBER: _ClassVar[int]
    FUNDINGS_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIPS_FIELD_NUMBER: _ClassVar[int]
    UNSOLICITED_FIELD_NUMBER: _ClassVar[int]
    fills: int
    trades: int
    rejects: int
    plans: int
    defects: int
    late: int
    crossings: int
    losing_exits: int
    fundings: int
    round_trips: int
    unsolicited: int
    def __init__(self, fills: _Optional[int] = ..., trades: _Optional[int] = ..., rejects: _Optional[int] = ..., plans: _Optional[int] = ..., defects: _Optional[int] = ..., late: _Optional[int] = ..., crossings: _Optional[int] = ..., losing_exits: _Optional[int] = ..., fundings: _Optional[int] = ..., round_trips: _Optional[int] = ..., unsolicited: _Optional[int] = ...) -> None: ...

class WatchedSymbol(_message.Message):
    __slots__ = ("candles", "spiking", "candle_ms", "volumes_lots", "closes_ticks")
    CANDLES_FIELD_NUMBER: _ClassVar[int]
    SPIKING_FIELD_NUMBER: _ClassVar[int]
    CANDLE_MS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_LOTS_FIELD_NUMBER: _ClassVar[int]
    CLOSES_TICKS_FIELD_NUMBER: _ClassVar[int]
    candles: int
    spiking: int
    candle_ms: int
    volumes_lots: _containers.RepeatedScalarFieldContainer[int]
    closes_ticks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, candles: _Optional[int] = ..., spiking: _Optional[int] = ..., candle_ms: _Optional[int] = ..., volumes_lots: _Optional[_Iterable[int]] = ..., closes_ticks: _Optional[_Iterable[int]] = ...) -> None: ...
