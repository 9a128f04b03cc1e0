// Figures of this moment: asked every two seconds while the page is in front, rates from two answers.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const cards = document.querySelector("[data-live]");
  if (!cards) return;
  const every = 2000, kept = 60;
  const rows = document.querySelector("[data-live-rows]");
  const history = {};
  let before = null;

  const size = (bytes) => {
    if (typeof bytes !== "number") return "–";
    const units = ["B", "KiB", "MiB", "GiB"];
    let at = 0;
    while (bytes >= 1024 && at < 3) { bytes /= 1024; at++; }
    return `${bytes.toLocaleString("en", { maximumFractionDigits: at ? 1 : 0, minimumFractionDigits: at ? 1 : 0 })} ${units[at]}`;
  };
  const time = (ms) => typeof ms !== "number" ? "–" : ms >= 100 ? `${ms.toFixed(0)} ms` : ms >= 0.1 ? `${ms.toFixed(2)} ms` : `${ms.toFixed(3)} ms`;
  const count = (n) => typeof n === "number" ? n.toLocaleString("en") : "–";
  const rate = (n) => n >= 100 || n === 0 ? count(Math.round(n)) : n.toFixed(1);

  const show = (key, value, text) => {
    cards.querySelector(`[data-figure=${key}]`).textContent = text;
    if (typeof value !== "number" || !isFinite(value)) return;
    const past = history[key] = [...(history[key] || []), value].slice(-kept);
    const top = Math.max(...past, 1e-9);
    const points = past.map((one, at) => `${(120 * at / Math.max(past.length - 1, 1)).toFixed(1)},${(31 - 29 * one / top).toFixed(1)}`);
    cards.querySelector(`[data-spark=${key}] polyline`).setAttribute("points", points.join(" "));
  };
  // The upper bound of the commit in the middle of those between two answers.
  const median = (now, past) => {
    const between = now.commit_counts.map((n, at) => n - (past.commit_counts[at] || 0));
    const half = between.reduce((a, b) => a + b, 0) / 2;
    let seen = 0;
    for (let at = 0; at < between.length; at++) {
      seen += between[at];
      if (half > 0 && seen >= half) return at < now.commit_bounds_ms.length ? now.commit_bounds_ms[at] : now.commit_bounds_ms.at(-1);
    }
    return null;
  };
  const cell = (row, text, kind) => {
    const made = document.createElement("td");
    made.className = kind;
    made.textContent = text;
    row.append(made);
  };
  const table = (found) => {
    rows.replaceChildren(...found.collections.map((one) => {
      const row = document.createElement("tr"), first = document.createElement("td"), link = document.createElement("a");
      first.className = "v";
      link.textContent = one.name;
      link.href = `/collection?c=${encodeURIComponent(one.name)}`;
      first.append(link);
      row.append(first);
      if (one.problem) { cell(row, one.problem, "quiet"); row.lastChild.colSpan = 6; return row; }
      cell(row, count(one.live), "n");
      cell(row, count(one.tail_rows), "n");
      cell(row, one.index_state || "–", "");
      cell(row, time(one.search_ms), "n");
      cell(row, size(one.bytes_ram), "n");
      cell(row, one.memory.map((part) => `${part.part} ${size(part.bytes)}`).join(", "), "quiet figures");
      return row;
    }));
  };
  const ask = async () => {
    const answer = document.hidden ? null : await fetch(cards.dataset.live).catch(() => null);
    if (answer && answer.ok) {
      const found = await answer.json();
      const focused = rows.contains(document.activeElement);
      if (!focused) table(found);
      if (before) {
        const seconds = Math.max(found.at - before.at, 1e-3);
        const commits = (found.sequence - before.sequence) / seconds;
        const requests = (found.requests - before.requests) / seconds;
        show("commits", commits, rate(commits));
        show("requests", requests, isFinite(requests) ? rate(requests) : "–");
        const sum = (figures) => figures.collections.reduce((all, one) => all + (one.queries || 0), 0);
        const searched = (sum(found) - sum(before)) / seconds;
        show("searches", searched, searched < 0 ? "–" : rate(searched));
        const middle = median(found, before);
        show("commit_ms", middle, middle === null ? "none now" : `under ${time(middle)}`);
      }
      const searches = found.collections.map((one) => one.search_ms).filter((ms) => typeof ms === "number");
      const mean = searches.length ? searches.reduce((a, b) => a + b, 0) / searches.length : null;
      show("search", mean, time(mean));
      const memory = found.collections.reduce((sum, one) => sum + (one.bytes_ram || 0), 0);
      show("memory", memory, size(memory));
      before = found;
    }
    setTimeout(ask, every);
  };
  ask();
});
