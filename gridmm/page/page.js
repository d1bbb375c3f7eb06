// Asks `/status` once a second and shows what it says. It builds nodes and sets text: nothing that it is told is markup.
"use strict";

const EVERY_MS = 1000, OLD_MS = 15000, SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
let chosen = "", heard = 0, newest = null, answers = true;

function node(name, text, about = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(about)) {
    if (value !== undefined && value !== "") made.setAttribute(key, value);
  }
  return made;
}

function drawn(name, about, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(about)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Digits before the point in groups of three, as on the exchange's own pages; the number itself is not touched.
function grouped(text) {
  const [whole, part] = String(text).split(".");
  const spaced = whole.replace(/\B(?=(\d{3})+$)/g, "\u202f");
  return part === undefined ? spaced : `${spaced}.${part}`;
}

function money(text) {
  const cents = Number(text).toFixed(2);
  return (Number(cents) > 0 ? "+" : "") + grouped(cents);
}

const tone = (text) => (Number(text) > 0 ? "buy" : Number(text) < 0 ? "sell" : "");
const clock = (ms) => new Date(ms).toISOString().slice(11, 19);
const moment = (ms) => new Date(ms).toISOString().slice(0, 19).replace("T", " ");

function lasting(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

// Rows are lists of cells; a cell is text, or [text, class], or a node.
function table(id, names, rows, none) {
  const right = names.map((name) => name.startsWith(">"));
  const head = node("tr");
  names.forEach((name, i) => head.append(node("th", name.replace(">", ""), { class: right[i] ? "number" : "" })));
  const body = rows.map((cells) => {
    const row = node("tr", undefined, { class: cells.here ? "here" : "" });
    cells.forEach((cell, i) => {
      const [text, style] = Array.isArray(cell) ? cell : [cell, ""];
      const about = { class: [style, right[i] ? "number" : ""].join(" ").trim() };
      const made = node("td", text instanceof Node ? undefined : text, about);
      if (text instanceof Node) made.append(text);
      row.append(made);
    });
    return row;
  });
  if (!rows.length) {
    const row = node("tr");
    row.append(node("td", none, { class: "soft", colspan: names.length }));
    body.push(row);
  }
  at(id).replaceChildren(...(names.some((name) => name.replace(">", "")) ? [head] : []), ...body);
}

function figures(grid) {
  const total = Number(grid.realized_pnl) + Number(grid.unrealized_pnl);
  const parts = [
    ["last price", grouped(grid.last), ""],
    ["position", `${grid.position} of ${grid.max_position} ${grid.base}`, ""],
    [`total, ${grid.quote}`, money(total), tone(total)],
    ["realized", money(grid.realized_pnl), tone(grid.realized_pnl)],
    ["unrealized", money(grid.unrealized_pnl), tone(grid.unrealized_pnl)],
    ["inventory skew", Number(grid.inventory_skew).toFixed(2), ""],
    ["active slots", grid.active_slots, ""],
    ["fills", `${grid.fills} (${grid.round_trips} trips)`, ""],
  ];
  at("figures").replaceChildren(...parts.map(([name, value, style]) => {
    const made = node("div");
    made.append(node("span", name), node("b", value, { class: style }));
    return made;
  }));
}

// Lines over time: [[class, [[ms, number], ...]], ...]; dots are [ms, number, class].
function chart(id, lines, dots) {
  const place = at(id), all = [...lines.flatMap(([, points]) => points), ...dots];
  if (all.length < 2) return place.replaceChildren(node("p", "nothing to draw yet", { class: "soft" }));
  const width = Math.max(place.clientWidth, 200), height = Math.max(place.clientHeight, 120), left = 64, low = 20;
  const times = all.map((one) => one[0]), values = all.map((one) => one[1]);
  const [from, to] = [Math.min(...times), Math.max(...times)];
  let [least, most] = [Math.min(...values), Math.max(...values)];
  const room = (most - least || Math.abs(most) || 1) * 0.06;
  [least, most] = [least - room, most + room];
  const x = (ms) => left + ((width - left - 6) * (ms - from)) / (to - from || 1);
  const y = (value) => 6 + ((height - low - 6) * (most - value)) / (most - least);
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const digits = most - least > 50 ? 0 : 2;
  for (const value of [least + room, (least + most) / 2, most - room]) {
    svg.append(drawn("line", { class: "axis", x1: left, x2: width, y1: y(value), y2: y(value) }));
    svg.append(drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, grouped(value.toFixed(digits))));
  }
  for (const [ms, anchor] of [[from, "start"], [to, "end"]]) {
    svg.append(drawn("text", { x: x(ms), y: height - 4, "text-anchor": anchor }, `${moment(ms).slice(5, 16)} UTC`));
  }
  for (const [style, points] of lines) {
    const way = points.map(([ms, value], i) => `${i ? "L" : "M"}${x(ms).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    svg.append(drawn("path", { class: style, d: way }));
  }
  for (const [ms, value, style] of dots) {
    svg.append(drawn("circle", { class: `fill ${style}`, cx: x(ms), cy: y(value), r: 3.5 }));
  }
  place.replaceChildren(svg);
}

function charts(grid) {
  const from = grid.history.length ? grid.history[0].time_ms : 0;
  const fills = grid.last_fills.filter((one) => one.time_ms >= from);
  chart("price", [["last", grid.history.map((one) => [one.time_ms, Number(one.last)])]],
    fills.map((one) => [one.time_ms, Number(one.price), one.side]));
  chart("result", [
    ["realized", grid.history.map((one) => [one.time_ms, Number(one.realized)])],
    ["total", grid.history.map((one) => [one.time_ms, Number(one.total)])],
  ], []);
}

const WORDS = { LOCKED: "●", PENDING: "○", FREE: "" };

function ladder(grid) {
  const last = Number(grid.last), rows = [];
  let passed = false;
  const here = Object.assign([["", ""], [grouped(grid.last), ""], ["last", ""], ["", ""]], { here: true });
  for (const rung of [...grid.ladder].sort((a, b) => Number(b.price) - Number(a.price))) {
    if (!passed && Number(rung.price) <= last) { rows.push(here); passed = true; }
    const what = rung.order ? `${WORDS[rung.slot_status]} ${rung.order} ${rung.quantity}` : rung.why || "–";
    rows.push([[rung.cell, "soft"], [grouped(rung.price), rung.order || "soft"], [what, rung.order || "soft"],
      [rung.held === "0" ? "" : rung.held, ""]]);
  }
  if (!passed) rows.push(here);
  table("ladder", [">cell", ">price", "order, or why there is none", ">held"], rows, "no level yet");
}

function risk(grid) {
  at("mode").textContent = grid.risk_mode + (grid.stop === "RUN" ? "" : `, stopping: ${grid.stop}`);
  at("mode").className = grid.risk_mode === "NORMAL" ? "buy" : grid.risk_mode === "HALTED" ? "sell" : "warn";
  const rows = grid.triggers.map((one) => {
    const bar = node("meter", undefined, { min: 0, max: one.limit, value: one.value, high: Number(one.limit) * 0.8,
      title: `${one.value} of ${one.limit} ${one.unit}` });
    const state = one.active ? `tripped ${moment(one.since_ms)}` : "";
    return [[one.name, one.active ? "sell" : ""], bar, `${one.value} of ${one.limit} ${one.unit}`, [state, "sell"]];
  });
  table("triggers", ["trigger", "", "value of limit", ""], rows, "no trigger has a limit");
}

function counts(grid) {
  const parts = ["harvest", "trend", "fees", "funding", "residual"];
  table("parts", ["", ""], parts.map((name) => {
    const value = grid.parts[name], bad = name === "residual" && value !== "0";
    return [name, [name === "residual" ? value : `${money(value)} ${grid.quote}`, bad ? "sell" : tone(value)]];
  }), "");
  const o = grid.orders;
  const rows = [["orders at the exchange", o.working], ["saved, not confirmed", o.pending], ["sent, no answer", o.unknown]];
  for (const one of grid.doubtful) rows.push([[`in doubt: ${one.slot}, ${one.order}`, "warn"], lasting(one.age_ms)]);
  for (const one of grid.holes) rows.push([[`empty: ${one.name}`, "soft"], one.count]);
  for (const one of grid.outcomes) rows.push([[one.name, "soft"], one.count]);
  table("counts", ["", ">"], rows, "");
  at("connection").hidden = !grid.streams.length && !grid.traffic;
  const lines = grid.streams.map((one) => [`stream: ${one.name}`, `heard ${lasting(one.silent_ms)} ago`]);
  if (grid.traffic) {
    const t = grid.traffic;
    for (const one of t.requests) lines.push([`requests: ${one.name}`, one.count]);
    lines.push(["budget left", `${t.budget_left_pct} %`], ["orders a fill", t.orders_per_fill || "–"]);
    lines.push(["told to wait", t.throttles], ["streams cut", t.cuts], ["frames unreadable", t.bad_frames]);
  }
  table("streams", ["", ">"], lines, "");
}

function stories(grid) {
  table("decisions", ["time (UTC)", "bid", "what was done, and why"], grid.last_decisions.map((one) => {
    const list = node("div");
    one.actions.slice(0, 6).forEach((action) => list.append(node("div", action)));
    if (one.actions.length > 6) list.append(node("div", `and ${one.actions.length - 6} more`, { class: "soft" }));
    return [[moment(one.time_ms), "soft"], grouped(one.bid), list];
  }), "none yet");
  table("commands", ["sent (UTC)", "asked for", "by", "why", "answer"], grid.commands.map((one) =>
    [[moment(one.sent_ms), "soft"], one.asked, one.who, one.why, `${one.state} ${one.result}`]), "none yet");
}

function choices(grid) {
  const found = [["stop", "cancel", "stop: cancel all orders"], ["stop", "drain", "stop: let closing orders work"],
    ["stop", "flatten", "stop: close at the market"], ["pause", "", "pause: open nothing"],
    ["reset-risk", "all", "reset risk: all triggers"]];
  for (const one of grid.triggers) {
    if (one.active) found.push(["reset-risk", one.name.toLowerCase(), `reset risk: ${one.name}`]);
  }
  for (const one of grid.doubtful) found.push(["clear", one.slot, `clear slot ${one.slot}: ${one.order}`]);
  return found;
}

function acting(status, grid) {
  at("act").hidden = !status.can_act;
  const select = at("what"), before = select.value, wanted = choices(grid);
  const values = wanted.map(([kind, argument]) => JSON.stringify([kind, argument]));
  if (values.join() !== [...select.options].map((one) => one.value).join()) {
    select.replaceChildren(...wanted.map(([, , text], i) => node("option", text, { value: values[i] })));
    if (values.includes(before)) select.value = before;
  }
  phrase(grid);
}

function phrase(grid) {
  const [kind, argument] = JSON.parse(at("what").value || '["",""]');
  at("phrase").textContent = [kind, argument, grid.grid].filter(Boolean).join(" ");
}

function show(status) {
  const names = status.grids.map((one) => one.grid);
  if (!names.includes(chosen)) chosen = names[0] || "";
  const grid = status.grids.find((one) => one.grid === chosen);
  at("grids").replaceChildren(...status.grids.map((one) => {
    const made = node("button", one.grid, { type: "button", "aria-current": String(one.grid === chosen) });
    made.addEventListener("click", () => { chosen = one.grid; show(newest); });
    return made;
  }));
  at("alerts").replaceChildren(...status.alerts.map((one) =>
    node("li", `${one.name}${names.length > 1 ? ` (${one.grid})` : ""}: ${one.text}. Type: gridmm runbook ${one.runbook}`,
      { class: one.severity })));
  at("foot").textContent = `gridmm ${status.code_version}, running since ${moment(status.started_ms)} UTC` +
    (grid ? `; ${grid.engine} on ${grid.exchange}; state ${grid.version}, start ${grid.incarnation}, lattice ${grid.epoch}` : "");
  document.title = grid ? `${grid.risk_mode === "NORMAL" ? "" : "! "}${grid.grid} ${grid.last}` : "gridmm";
  if (!grid) return;
  figures(grid); charts(grid); ladder(grid); risk(grid); counts(grid); stories(grid); acting(status, grid);
}

function life() {
  const silent = Date.now() - heard, grid = newest && newest.grids.find((one) => one.grid === chosen);
  const old = !answers || silent > 3 * EVERY_MS, hangs = grid && grid.loop_age_ms > OLD_MS;
  document.body.classList.toggle("old", Boolean(newest) && (old || hangs));
  at("stale").hidden = !(old && heard) && !hangs && (answers || heard > 0);
  at("stale").textContent = heard === 0 ? "The process does not answer."
    : old ? `The process has not answered for ${lasting(silent)}: what you see is of ${clock(heard)} your time's UTC. Is it still running?`
      : `The engine has not turned for ${lasting(hangs ? grid.loop_age_ms : 0)}: what you see is as old.`;
  if (!newest) return;
  const ready = newest.ready ? "ready" : `not ready: ${newest.not_ready.join("; ")}`;
  at("life").textContent = old ? "no answer" : `${ready} · ${grid ? `${moment(grid.time_ms)} UTC` : ""}`;
}

async function ask() {
  try {
    const said = await fetch("status", { signal: AbortSignal.timeout(5000) });
    newest = await said.json();
    heard = Date.now();
    answers = true;
    show(newest);
  } catch {
    answers = false;
  }
  life();
  setTimeout(ask, EVERY_MS);
}

at("what").addEventListener("change", () => phrase({ grid: chosen }));
at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [kind, argument] = JSON.parse(at("what").value);
  const body = { grid: chosen, kind, argument, why: at("why").value, confirm: at("confirm").value };
  const headers = { "Content-Type": "application/json", Authorization: `Bearer ${at("token").value}` };
  try {
    const said = await fetch("commands", { method: "POST", headers, body: JSON.stringify(body) });
    const answer = await said.json();
    at("answer").textContent = said.ok ? `sent: ${answer.asked}. The answer appears under Commands.` : answer.error;
    if (said.ok) { at("confirm").value = ""; at("why").value = ""; }
  } catch {
    at("answer").textContent = "The process does not answer: nothing was sent.";
  }
});
ask();
setInterval(life, EVERY_MS);
