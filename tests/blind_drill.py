"""A drill for a person: something is wrong with a running grid, and only the runbook's page says what to do.

    python tests/blind_drill.py begin stuck_slots 2 FOLDER &     # plants one of the faults, and does not say which
    python tests/blind_drill.py hand FOLDER                      # what the operator can do beside `gridmm`
    python tests/blind_drill.py hand FOLDER page                 # … the exchange's page, for instance
    python tests/blind_drill.py hand FOLDER done                 # the judgement: what it was, and what is still wrong

Whoever begins hands FOLDER/sheet to the operator, who has a terminal, the database and the page, and must not look into
`faults.py`. The judgement is that of `fault_stage`: from the exchange's own books and the database, not from the engine.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from fault_stage import Stage, database_server, staged
from faults import FAULTS, KEYED, well_again

HANDS = """What you can do beside `gridmm` (python tests/blind_drill.py hand FOLDER …):

  sheet                 this text, with the addresses
  engine show           whether it runs, and the end of its terminal
  engine start [OPTIONS]   start it, as the service would, e.g. engine start --fresh
  engine term           send it SIGTERM, and wait until it has ended
  engine kill           end it at once
  page                  the exchange's page: open orders, trades, position, its own state, the account's keys
  page cancel ID        withdraw an order there
  page buy|sell QTY     trade there by hand
  page keys             the keys that the account has now
  page withdrawals off  take a right away from the key
  env NAME=VALUE        change the environment that the engine is started with
  others                call whoever runs the exchange, the network, the clock or the database server; come back in a minute
  done                  you have finished: it is judged
"""


def candidates(runbook: str) -> list[str]:
    """Return the faults of a runbook, in an order that no list shows."""
    found = sorted(name for name, fault in FAULTS.items() if fault.runbook == runbook)
    random.Random(runbook).shuffle(found)
    return found


class Master:
    """Holds a stage, and does what the operator's hands ask for."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder, self.log = stage, folder, list[str]()
        self.begun_s, self.over = time.time(), threading.Event()

    def sheet(self) -> str:
        """Return what the operator knows."""
        s, fault = self.stage, self.stage.fault
        reach = (
            f"--exchange binance --endpoint {s.address} --ca {s.exchange.ca}" if fault.place == "wire" else ""
        )
        keys = "\n".join(f"  export {name}={value}" for name, value in s.environ.items())
        return "\n".join((
            f"Seen first: {fault.symptom}", f"Runbook: {fault.runbook}", "",
            f"The grid: database {s.db}", f"          configuration {s.config}",
            f"          exchange: {reach or 'the database is what this is about'}",
            f"Copies of the database that somebody made: {', '.join(p.name for p in sorted(s.folder.glob('*est.sqlite')) + sorted(s.folder.glob('older.sqlite'))) or 'none'} in {s.folder}",
            f"The engine is started with: {shlex.join(s.run_command)}", "Its environment, and yours:", keys, "", HANDS,
        ))  # fmt: skip

    def do(self, words: list[str]) -> str:
        """Do one thing."""
        s = self.stage
        self.log.append(f"{time.time() - self.begun_s:.0f} s: {shlex.join(words)}")
        match words:
            case ["sheet"]:
                return self.sheet()
            case ["engine", "show"]:
                alive = s.process is not None and s.process.poll() is None
                return f"{'runs' if alive else 'does not run'}\n{s.terminal()[-3_000:]}"
            case ["engine", "start", *options]:
                self._notice_end()
                if "--fresh" in options:
                    trades = s.exchange.audit()["fills"]
                    s.truth["fresh_ms"] = max((one["time_ms"] for one in trades), default=0) + 1
                s.start(*options)
                return "started"
            case ["engine", "term"]:
                s.terminate()
                return f"ended with {s.ended(90)}"
            case ["engine", "kill"]:
                s.kill()
                return "killed"
            case ["page"]:
                return json.dumps(s.exchange.audit(), indent=1, default=str)
            case ["page", "cancel", client_id]:
                s.exchange("cancel", client_id=client_id)
                return "cancelled"
            case ["page", ("buy" | "sell") as side, quantity]:
                name = f"by-hand-{len(self.log) + 10}"
                about = {"price": "0", "quantity": quantity, "client_id": name, "market": True}
                return str(s.exchange("place", side=1 if side == "buy" else -1, **about))
            case ["page", "withdrawals", "off"]:
                s.exchange("withdrawals", on=False)
                return "the key may not withdraw any more"
            case ["page", "keys"]:
                return f"the keys that it takes: {s.truth.get('keys', tuple(s.environ.get(one) for one in KEYED))}"
            case ["env", pair]:
                name, _, value = pair.partition("=")
                s.environ[name] = value
                return f"the next start has {name}"
            case ["others"]:
                return self.others()
            case ["done"]:
                return self.judge()
        return HANDS

    def _notice_end(self) -> None:
        """Take note of an engine that has ended by itself."""
        if self.stage.process is not None and self.stage.process.poll() is not None:
            self.stage.ended()

    def others(self) -> str:
        """Let other people do their work."""
        if self.stage.fault.place == "postgres":
            if not database_server().running:
                database_server().start()
                return "they have started PostgreSQL"
            self.stage.mend()
            return "they have looked at the database's settings, and put them right"
        self.stage.exchange("faults", skew_ms=0)
        well_again(self.stage)
        return "they say that it works again"

    def judge(self) -> str:
        """Say what it was, and what is still wrong."""
        fault, wrong = self.stage.fault, ""
        self._notice_end()
        if fault.name.endswith("_busted"):
            there = {one["trade_id"] for one in self.stage.exchange.audit()["fills"]}
            self.stage.truth["busted"] = [trade for trade, _ in self.stage.fills() if trade not in there]
        try:
            self.stage.mended(30.0)
        except AssertionError as error:
            wrong = str(error)
        said = {
            "runbook": fault.runbook, "fault": fault.name, "truth": fault.truth, "must_hold": fault.must_hold,
            "harmless": fault.harmless, "mended": not wrong, "still_wrong": wrong, "steps": self.log,
            "seconds": round(time.time() - self.begun_s),
        }  # fmt: skip
        (self.folder / "judgement.json").write_text(json.dumps(said, indent=1), encoding="utf-8")
        self.over.set()
        return json.dumps(said, indent=1)


def begin(runbook: str, number: int, folder: Path) -> None:
    """Plant a fault, and serve the operator's hands until it was judged."""
    names = candidates(runbook)
    fault = FAULTS[names[number % len(names)]]
    with staged(replace(fault, name="grid"), folder) as stage:  # a folder must not say what it is
        stage.fault = fault
        master = Master(stage, folder)

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Answer the operator."""
                words = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    said, status = master.do(words), 200
                except Exception as error:
                    said, status = f"{type(error).__name__}: {error}", 400
                self.send_response(status)
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: Any) -> None:
                """Say nothing of it."""

        with HTTPServer(("127.0.0.1", 0), Answer) as server:
            (folder / "sheet").write_text(master.sheet(), encoding="utf-8")
            (folder / "address").write_text(f"http://127.0.0.1:{server.server_port}/", encoding="utf-8")
            while not master.over.is_set():
                server.handle_request()


def hand(folder: Path, words: list[str]) -> int:
    """Ask the master for something."""
    if not words:
        print(HANDS)
        return 0
    body = json.dumps(words).encode()
    try:
        with urllib.request.urlopen((folder / "address").read_text(), body, timeout=200) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.read().decode())
        return 1
    return 0


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description="A drill for a person.")
    to_do = parser.add_subparsers(dest="what", required=True)
    first = to_do.add_parser("begin")
    first.add_argument("runbook")
    first.add_argument("number", type=int)
    first.add_argument("folder", type=Path)
    then = to_do.add_parser("hand")
    then.add_argument("folder", type=Path)
    then.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if given.what == "hand":
        return hand(given.folder, given.words)
    given.folder.mkdir(parents=True, exist_ok=True)
    begin(given.runbook, given.number, given.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
