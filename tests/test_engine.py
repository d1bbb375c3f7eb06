"""What a start finds at the exchange: strays are cancelled by their own id, orders of others are left alone."""

import asyncio
from decimal import Decimal

import numpy as np

from gridmm.client_id import ClientId, encode
from gridmm.engine import Session
from gridmm.engine_simple import SimpleEngine
from gridmm.exchange import OrderRequest
from gridmm.exchange_paper import PaperExchange
from gridmm.layout import PAR_SIZE, Par, Var, empty_core
from gridmm.model import Meta
from gridmm.paper_account import Row
from gridmm.paper_market import PaperRules
from gridmm.store import MemoryStore
from gridmm.units import Instrument
from gridmm.vocabulary import Mode, Risk, Trigger

COIN = Instrument("BTC/USDT", "spot", Decimal("0.1"), Decimal("0.001"))
STRAY = encode(ClientId(7, 3, 1, -1, 1, 0, 1))  # the number of the first order that this start will make


def parameters() -> np.ndarray:
    par = np.zeros(PAR_SIZE, dtype=np.int64)
    par[[Par.MODE, Par.BUYS, Par.SELLS, Par.BASE, Par.MAX_EPOCHS]] = Mode.LONG, 2, 2, 500, 3
    par[[Par.SCALE_PPM, Par.CAP_PPM, Par.CHANGE_PCT, Par.MAX_ORDERS]] = 10**6, 4 * 10**6, 20, 50
    par[[Par.HALF_ATOMS, Par.CELL_ATOMS]] = COIN.half_atoms, COIN.atoms(Decimal(600))
    par[[Par.MAX_LOTS, Par.GROSS_LOTS, Par.QUERY_AFTER_MS, Par.BASE_LOT_ATOMS]] = (
        99,
        99,
        5_000,
        COIN.base_lot_atoms,
    )
    par[[Par.LIMITS + Trigger.STRAY_ORDER, Par.LIMITS + len(Trigger) + Trigger.STRAY_ORDER]] = (
        1,
        Risk.REDUCE_ONLY,
    )
    return par


async def start_beside(*requests: OrderRequest) -> tuple[SimpleEngine, list[str]]:
    """Start on an exchange that holds these orders, show one price, and return what is open then."""
    paper, store = PaperExchange(COIN, PaperRules()), MemoryStore("BTC/USDT")
    paper.advance(Row.QUOTE, 1_000, 599_999, 600_001, 0, 0)
    await paper.place(list(requests))
    meta = Meta(COIN, instance=7, incarnation=store.acquire())
    engine = SimpleEngine(Session(empty_core(), parameters(), meta, store), paper)
    await engine.start()
    await engine.on_price_update(2_000, 599_999, 600_001, 600_000)
    await engine.settle()
    return engine, [said.client_id for said in await paper.open_orders()]


def test_a_stray_is_cancelled_by_its_own_id_and_holds_the_grid() -> None:
    request = OrderRequest(STRAY, 1, Decimal("59000.0"), Decimal("0.010"))
    engine, open_orders = asyncio.run(start_beside(request))
    assert open_orders == []
    assert engine.session.core.v[Var.RISK] == Risk.REDUCE_ONLY


def test_an_order_of_somebody_else_is_never_touched() -> None:
    request = OrderRequest("BYHAND1", 1, Decimal("59000.0"), Decimal("0.010"))
    engine, open_orders = asyncio.run(start_beside(request))
    assert "BYHAND1" in open_orders and len(open_orders) == 3
    assert engine.session.core.v[Var.RISK] == Risk.NORMAL
