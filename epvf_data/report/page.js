"use strict";
// Everything that comes from the data set is shown with textContent: nothing in it is ever markup.
const D = JSON.parse(document.getElementById("data").textContent);
const P = D.points, N = P.row.length;
const HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#999999"];
const $ = (id) => document.getElementById(id);
const make = (tag, text, cls) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (cls) e.className = cls; return e; };
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const many = (n, noun) => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");
const short = (v) => v === null || v === undefined || !isFinite(v) ? "–" : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(1) : String(+v.toPrecision(4));
const hue = (i) => HUES[P.source[i] % HUES.length];

const hidden = { source: new Set(), dataset: new Set() };
let picked = null;  // indices in the brushed area, or null for all
let owner = null;  // the panel that was brushed
let chosen = -1;  // the point that was clicked
const alive = (i) => !hidden.source.has(P.source[i]) && !hidden.dataset.has(P.dataset[i]);
const lit = (i) => alive(i) && (picked === null || picked.has(i));

function pairs(list, rows) { const dl = make("dl"); for (const [k, v] of rows) if (v !== null && v !== undefined && v !== "") { dl.append(make("dt", k)); const dd = make("dd"); if (v instanceof Node) dd.append(v); else dd.textContent = v; dl.append(dd); } list.append(dl); }

function ticks(lo, hi, n) {
  const raw = (hi - lo) / n, mag = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((m) => m * mag).find((s) => s >= raw);
  const out = []; for (let t = Math.ceil(lo / step) * step; t <= hi + step * 1e-9; t += step) out.push(+t.toPrecision(12)); return out;
}
function extent(values) { let lo = Infinity, hi = -Infinity; for (const v of values) if (v !== null) { if (v < lo) lo = v; if (v > hi) hi = v; } if (lo > hi) return null; if (lo === hi) { lo -= 0.5; hi += 0.5; } const pad = (hi - lo) * 0.04; return [lo - pad, hi + pad]; }

class Panel {
  constructor(title, note, xs, ys, xname, yname, square) {
    Object.assign(this, { xs, ys, xname, yname, square, area: null });
    const box = make("div", undefined, "panel"); this.head = make("h3", title); box.append(this.head);
    if (note) box.append(make("p", note, "soft"));
    this.canvas = make("canvas"); this.canvas.tabIndex = 0; this.canvas.setAttribute("role", "img"); this.canvas.setAttribute("aria-label", title); box.append(this.canvas); $("panels").append(box); this.box = box;
    this.listen();
  }
  range() { this.rx = extent(this.xs); this.ry = this.ys ? extent(this.ys) : null; if (this.square && this.rx && this.ry) this.ry = [Math.min(this.rx[0], this.ry[0]), Math.max(this.rx[1], this.ry[1])], this.rx = this.ry; }
  fit() {
    const r = this.canvas.getBoundingClientRect(), k = window.devicePixelRatio || 1;
    this.canvas.width = r.width * k; this.canvas.height = r.height * k; this.w = r.width; this.h = r.height;
    this.pad = { l: 56, r: 12, t: 10, b: 40 };
    const c = this.canvas.getContext("2d"); c.setTransform(k, 0, 0, k, 0, 0); return c;
  }
  X(v) { return this.pad.l + (v - this.rx[0]) / (this.rx[1] - this.rx[0]) * (this.w - this.pad.l - this.pad.r); }
  Y(v) { return this.h - this.pad.b - (v - this.ry[0]) / (this.ry[1] - this.ry[0]) * (this.h - this.pad.t - this.pad.b); }
  inv(px, py) { return [this.rx[0] + (px - this.pad.l) / (this.w - this.pad.l - this.pad.r) * (this.rx[1] - this.rx[0]), this.ry[0] + (this.h - this.pad.b - py) / (this.h - this.pad.t - this.pad.b) * (this.ry[1] - this.ry[0])]; }
  axes(c) {
    c.font = "12px system-ui, 'DejaVu Sans', sans-serif"; c.strokeStyle = css("--line"); c.fillStyle = css("--soft"); c.lineWidth = 1;
    c.textAlign = "center"; c.textBaseline = "top";
    for (const t of ticks(...this.rx, 6)) { const x = this.X(t); c.beginPath(); c.moveTo(x, this.pad.t); c.lineTo(x, this.h - this.pad.b); c.stroke(); c.fillText(short(t), x, this.h - this.pad.b + 5); }
    c.textAlign = "right"; c.textBaseline = "middle";
    for (const t of ticks(...this.ry, 5)) { const y = this.Y(t); c.beginPath(); c.moveTo(this.pad.l, y); c.lineTo(this.w - this.pad.r, y); c.stroke(); c.fillText(short(t), this.pad.l - 6, y); }
    c.textAlign = "center"; c.textBaseline = "bottom"; c.fillText(this.xname, (this.pad.l + this.w - this.pad.r) / 2, this.h - 3);
    c.save(); c.translate(12, (this.pad.t + this.h - this.pad.b) / 2); c.rotate(-Math.PI / 2); c.textBaseline = "middle"; c.fillText(this.yname, 0, 0); c.restore();
  }
  draw() {
    this.range(); const c = this.fit(); c.clearRect(0, 0, this.w, this.h);
    if (!this.rx || (this.ys && !this.ry)) { c.fillStyle = css("--soft"); c.font = "14px system-ui, sans-serif"; c.textAlign = "center"; c.fillText("no row has these numbers", this.w / 2, this.h / 2); return; }
    this.marks(c); this.brush(c);
  }
  has(i) { return this.xs[i] !== null && this.xs[i] !== undefined && this.ys[i] !== null && this.ys[i] !== undefined; }
  marks(c) {
    this.axes(c);
    if (this.square) { c.strokeStyle = css("--soft"); c.setLineDash([4, 4]); c.beginPath(); c.moveTo(this.X(this.rx[0]), this.Y(this.ry[0])); c.lineTo(this.X(this.rx[1]), this.Y(this.ry[1])); c.stroke(); c.setLineDash([]); }
    const size = N > 4000 ? 2 : 2.6;
    for (const front of [false, true]) {
      c.globalAlpha = front ? 0.62 : 0.14;
      for (const i of ORDER) if (alive(i) && lit(i) === front && this.has(i)) { c.fillStyle = front ? hue(i) : css_soft; c.beginPath(); c.arc(this.X(this.xs[i]), this.Y(this.ys[i]), size, 0, 7); c.fill(); }
    }
    c.globalAlpha = 1;
    if (chosen >= 0 && this.has(chosen)) { c.strokeStyle = css("--ink"); c.lineWidth = 2; c.beginPath(); c.arc(this.X(this.xs[chosen]), this.Y(this.ys[chosen]), 7, 0, 7); c.stroke(); }
  }
  brush(c) {
    if (!this.area) return;
    const [x0, y0, x1, y1] = this.area; c.strokeStyle = css("--accent"); c.fillStyle = css("--accent"); c.lineWidth = 1.5;
    c.globalAlpha = 0.1; c.fillRect(x0, y0, x1 - x0, y1 - y0); c.globalAlpha = 1; c.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  inside(area) {
    const [a, b] = this.inv(area[0], area[3]), [d, e] = this.inv(area[2], area[1]), found = new Set();
    for (let i = 0; i < N; i++) if (this.has(i) && this.xs[i] >= a && this.xs[i] <= d && this.ys[i] >= b && this.ys[i] <= e) found.add(i);
    return found;
  }
  nearest(x, y) {
    let best = -1, far = 144;
    for (let i = 0; i < N; i++) if (lit(i) && this.has(i)) { const d = (this.X(this.xs[i]) - x) ** 2 + (this.Y(this.ys[i]) - y) ** 2; if (d < far) { far = d; best = i; } }
    return best;
  }
  click(x, y) { const i = this.nearest(x, y); if (i >= 0) show(i); }
  listen() {
    let from = null; const at = (e) => { const r = this.canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
    this.canvas.addEventListener("pointerdown", (e) => { from = at(e); this.canvas.setPointerCapture(e.pointerId); });
    this.canvas.addEventListener("pointermove", (e) => { if (!from || !this.rx) return; const to = at(e); if (Math.hypot(to[0] - from[0], to[1] - from[1]) < 4) return; this.select(this.shape([Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])])); });
    this.canvas.addEventListener("pointerup", (e) => { if (!from) return; const to = at(e), near = Math.hypot(to[0] - from[0], to[1] - from[1]) < 4; from = null; if (near && this.rx) this.click(...to); });
  }
  shape(area) { return area; }
  select(area) { for (const p of panels) p.area = null; this.area = area; owner = this; picked = this.inside(area); later(); }
}

class Histogram extends Panel {
  range() {
    this.rx = extent(P.return); if (!this.rx) return;
    this.bins = 50; this.counts = Array.from({ length: this.bins }, () => ({ lit: D.sources.map(() => 0), all: 0 }));
    for (let i = 0; i < N; i++) if (alive(i) && P.return[i] !== null) { const b = this.counts[this.bin(P.return[i])]; b.all++; if (lit(i)) b.lit[P.source[i]]++; }
    this.ry = [0, Math.max(1, ...this.counts.map((b) => b.all)) * 1.05];
  }
  bin(v) { return Math.min(this.bins - 1, Math.floor((v - this.rx[0]) / (this.rx[1] - this.rx[0]) * this.bins)); }
  marks(c) {
    this.axes(c); const wide = (this.w - this.pad.l - this.pad.r) / this.bins;
    this.counts.forEach((b, k) => {
      const x = this.pad.l + k * wide; c.fillStyle = css_soft; c.globalAlpha = 0.25; c.fillRect(x + 0.5, this.Y(b.all), wide - 1, this.Y(0) - this.Y(b.all)); c.globalAlpha = 1;
      let sum = 0; b.lit.forEach((n, s) => { if (!n) return; c.fillStyle = HUES[s % HUES.length]; c.fillRect(x + 0.5, this.Y(sum + n), wide - 1, this.Y(sum) - this.Y(sum + n)); sum += n; });
    });
    if (chosen >= 0 && P.return[chosen] !== null) { const x = this.X(P.return[chosen]); c.strokeStyle = css("--ink"); c.lineWidth = 2; c.beginPath(); c.moveTo(x, this.pad.t); c.lineTo(x, this.Y(0)); c.stroke(); }
  }
  shape(area) { return [area[0], this.pad.t, area[2], this.h - this.pad.b]; }
  inside(area) { const [a] = this.inv(area[0], 0), [b] = this.inv(area[2], 0), found = new Set(); for (let i = 0; i < N; i++) if (P.return[i] !== null && P.return[i] >= a && P.return[i] <= b) found.add(i); return found; }
  click() { clear(); }
}

let css_soft = "#888", waiting = false, panels = [];
const ORDER = Array.from({ length: N }, (_, i) => i);  // mixed, so that no source hides another
for (let i = N - 1, s = 1; i > 0; i--) { s = (s * 16807) % 2147483647; const j = s % (i + 1); [ORDER[i], ORDER[j]] = [ORDER[j], ORDER[i]]; }
function later() { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } }
function draw() { css_soft = css("--soft"); for (const p of panels) p.draw(); count(); }
function clear() { picked = null; owner = null; for (const p of panels) p.area = null; later(); }

function count() {
  let n = 0, sum = 0, top = -Infinity, all = 0; const by = D.sources.map(() => 0);
  for (let i = 0; i < N; i++) { if (!alive(i)) continue; all++; if (!lit(i)) continue; n++; by[P.source[i]]++; if (P.return[i] !== null) { sum += P.return[i]; if (P.return[i] > top) top = P.return[i]; } }
  const drawn = N < D.rows ? ` of ${many(D.rows, "row")} in all` : "";
  const parts = by.map((k, s) => [k, s]).filter(([k]) => k).sort((a, b) => b[0] - a[0]).slice(0, 4).map(([k, s]) => `${D.sources[s]} ${k.toLocaleString("en")}`);
  $("picked").textContent = picked === null ? `${many(all, "policy").replace("policys", "policies")} drawn${drawn}. Drag over a panel to select, click a point to look at it.` : `${many(n, "policy").replace("policys", "policies")} selected: mean return ${short(n ? sum / n : NaN)}, best ${short(top)} · ${parts.join(", ")}`;
  $("clear").disabled = picked === null;
}

const quote = (text) => /^[\w./:@%+=,-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\\''") + "'";
function show(i) {
  chosen = i; const box = $("detail"); box.replaceChildren(); const d = D.datasets[P.dataset[i]], layer = D.layers[P.layer[i]];
  box.append(make("h3", `Row ${P.row[i].toLocaleString("en")} of ${d.name}`));
  const single = P.low[i] !== P.high[i] ? ` (episodes ${short(P.low[i])} to ${short(P.high[i])})` : "";
  const id = D.architectures[layer], code = make("code", `epvf-data export-policy ${quote(d.path)} --row ${P.row[i]} --architecture ${id}`);
  pairs(box, [["return", short(P.return[i]) + single], ["episode length", short(P.length[i]) + " control steps"], ["policy", `${layer} (${id})`], ["norm", short(P.norm[i])], ["source", D.sources[P.source[i]]], ["varies", P.base[i] < 0 ? null : P.bases[P.base[i]]], ["perturbation", P.scale[i] ? `scale ${short(P.scale[i])}, sign ${P.sign[i] > 0 ? "+" : "−"}` : null], ["iteration", P.iteration[i] >= 0 ? P.iteration[i] : null], ...D.runs.map((r) => [`V of ${r.run}`, r.values[i] === null ? "not a held-out row" : short(r.values[i])]), ["export it", code]]);
  const kin = []; if (P.base[i] >= 0) for (let j = 0; j < N; j++) if (P.base[j] === P.base[i] && P.dataset[j] === P.dataset[i]) kin.push(j);
  if (kin.length > 1) { const b = make("button", `select its ${kin.length.toLocaleString("en")} drawn relatives`); b.type = "button"; b.onclick = () => { for (const p of panels) p.area = null; picked = new Set(kin); later(); }; box.append(b); }
  later();
}

function toggles(into, names, kind, colour) {
  names.forEach((name, k) => {
    const b = make("button"); b.type = "button"; b.title = name; b.setAttribute("aria-pressed", "true");
    if (colour) { const dot = make("span", undefined, "dot"); dot.style.background = HUES[k % HUES.length]; b.append(dot); }
    b.append(name); b.onclick = () => { const off = hidden[kind].has(k); if (off) hidden[kind].delete(k); else hidden[kind].add(k); b.setAttribute("aria-pressed", String(off)); later(); }; into.append(b);
  });
}
function table(into, head, rows, right) {
  const wrap = make("div", undefined, "wide"), t = make("table"), tr = make("tr"); head.forEach((h, k) => tr.append(make("th", h, right.includes(k) ? "n" : undefined))); t.append(tr);
  for (const row of rows) { const r = make("tr"); row.forEach((v, k) => { const cell = make("td", undefined, right.includes(k) ? "n" : undefined); if (v instanceof Node) cell.append(v); else cell.textContent = v; r.append(cell); }); t.append(r); }
  wrap.append(t); into.append(wrap);
}

function start() {
  document.querySelector("h1").textContent = D.datasets.map((d) => d.name).join("  ·  ");
  $("lead").textContent = `${many(D.rows, "policy").replace("policys", "policies")} and their returns${N < D.rows ? `; ${N.toLocaleString("en")} of them are drawn here` : ""}.`;
  for (const d of D.datasets) {
    const card = make("div", undefined, "card"); card.append(make("h3", d.name));
    pairs(card, [["task", `${d.env}, horizon ${d.horizon.toLocaleString("en")}`], ["task digest", d.digest], ["rows", `${d.rows.toLocaleString("en")} in ${many(d.commits, "commit")}`], ["head", d.head ? make("code", "sha256:" + d.head) : "no commit"], ["signatures", d.signatures], ["licence", d.licences.join(", ") || "none stated"]]);
    $("facts").append(card);
  }
  if (D.datasets.length > 1) toggles($("filters"), D.datasets.map((d) => d.name), "dataset", false);
  toggles($("legend"), D.sources, "source", true);
  const share = D.explained[0] ? `: ${Math.round(100 * (D.explained[0] + D.explained[1]))} % of the variance` : "";
  panels = [new Histogram("Returns by source", "stacked; mean over each policy's episodes; linear scale", P.return, null, "return", "policies"), new Panel("What policies do", `first two principal components of the actions in probing states${share}`, P.x, P.y, "first component", "second component"), new Panel("Norm and return", "Euclidean norm of the parameters", P.norm, P.return, "norm", "return")];
  for (const r of D.runs) panels.push(new Panel(`${r.run}: predicted and true`, `${r.critic}, held out by ${r.split}: Spearman ${short(r.spearman)}${r.ridge === null ? "" : `, its control (ridge) ${short(r.ridge)},`} on all ${r.held_out.toLocaleString("en")} held-out rows; only these are drawn; dashed: exact`, r.values, P.return.map((v, i) => r.values[i] === null ? null : v), "predicted return", "true return", true));
  const f = $("frames"); if (D.frames.some((s) => s.length)) { f.append(make("h2", "Best, median and worst policy of every source")); f.append(make("p", "One episode each, played again when this page was made.", "soft")); }
  D.datasets.forEach((d, k) => { const kinds = [...new Set(D.frames[k].map((s) => s.source))]; for (const kind of kinds) { const mine = D.frames[k].filter((s) => s.source === kind); f.append(make("h3", (D.datasets.length > 1 ? d.name + ": " : "") + kind)); const grid = make("div", undefined, "strips"); for (const s of mine) { const fig = make("figure"), img = make("img"); img.src = s.picture; img.alt = `${s.rank} policy of ${kind}`; img.loading = "lazy"; fig.append(img, make("figcaption", `${s.rank}: return ${short(s.played)} in ${s.steps.toLocaleString("en")} steps (${s.ended}); row ${s.row} of ${s.layer}`)); grid.append(fig); } f.append(grid); } });
  for (const note of D.notes) f.append(make("p", note, "soft"));
  const cover = $("coverage"); cover.append(make("h2", "Coverage"));
  const rows = D.datasets.flatMap((d) => d.coverage.map((l) => [...(D.datasets.length > 1 ? [d.name] : []), l.source, l.architecture, l.rows.toLocaleString("en"), short(l.return_mean), short(l.return_max)])), extra = D.datasets.length > 1 ? 1 : 0;
  table(cover, [...(extra ? ["data set"] : []), "source", "policies", "rows", "mean return", "best"], rows, [2 + extra, 3 + extra, 4 + extra]);
  const log = $("commits"); log.append(make("h2", "Commits: who made what"));
  for (const d of D.datasets) { if (D.datasets.length > 1) log.append(make("h3", d.name)); if (d.left_out) log.append(make("p", `${many(d.left_out, "earlier commit")} left out.`, "soft")); table(log, ["commit", "made", "rows", "by", "command"], d.events.map((e) => [(e.origin ? "from " : "") + e.commit, e.created || "–", e.rows === null ? "–" : e.rows.toLocaleString("en"), e.who || "not stated", e.command ? make("span", e.command, "mono") : "–"]), [2]); }
  document.querySelector("footer").textContent = `Made ${D.made} by epvf-data ${D.version}. This file holds all that it shows; it loads nothing.`;
  $("clear").onclick = clear; addEventListener("keydown", (e) => { if (e.key === "Escape") clear(); }); addEventListener("resize", later); matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later); draw();
}
start();
