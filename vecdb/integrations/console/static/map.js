// The map of vectors: points on a canvas that moves and zooms by mouse, touch and keys.
"use strict";

document.addEventListener("DOMContentLoaded", async () => {
  const frame = document.querySelector("[data-points]");
  if (!frame) return;
  const canvas = frame.querySelector("canvas");
  const tip = frame.querySelector(".tip");
  const pen = canvas.getContext("2d");
  const answer = await fetch(frame.dataset.points);
  if (!answer.ok) return;
  const data = await answer.json();
  const view = { x: 0, y: 0, zoom: 1 };
  const pointers = new Map();
  let palette = [], chosen = -1, waiting = false;

  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    const steps = data.kind === "steps" ? "s" : "c";
    palette = data.legend.map((_, at) => read(`--${steps}${at}`));
    palette.other = read(data.legend.length ? "--other" : "--accent");
    palette.text = read("--text");
  };
  const scale = () => 0.47 * Math.min(canvas.clientWidth, canvas.clientHeight) * view.zoom;
  const place = (at) => [
    canvas.clientWidth / 2 + (data.x[at] - view.x) * scale(),
    canvas.clientHeight / 2 - (data.y[at] - view.y) * scale(),
  ];
  const draw = () => {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const radius = Math.min(5, (data.x.length > 2000 ? 1.6 : 2.4) * Math.sqrt(view.zoom));
    for (const others of [true, false]) {
      for (let at = 0; at < data.x.length; at++) {
        const code = data.codes[at];
        if (code < 0 !== others) continue;
        const [x, y] = place(at);
        if (x < -9 || y < -9 || x > canvas.clientWidth + 9 || y > canvas.clientHeight + 9) continue;
        pen.globalAlpha = 0.78;
        pen.fillStyle = code < 0 ? palette.other : palette[code];
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      }
    }
    if (chosen >= 0) {
      const [x, y] = place(chosen);
      pen.globalAlpha = 1;
      pen.strokeStyle = palette.text;
      pen.lineWidth = 1.5;
      pen.beginPath();
      pen.arc(x, y, radius + 3, 0, 7);
      pen.stroke();
    }
    canvas.dataset.zoom = view.zoom.toFixed(3);
    canvas.dataset.drawn = String(data.x.length);
  };
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  const choose = (at) => {
    chosen = at;
    tip.hidden = at < 0;
    if (at >= 0) { tip.textContent = data.labels[at]; tip.href = data.addresses[at]; }
    later();
  };
  const nearest = (x, y, within) => {
    let best = -1, least = within * within;
    for (let at = 0; at < data.x.length; at++) {
      const [px, py] = place(at);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) { least = far; best = at; }
    }
    return best;
  };
  const zoom = (factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
    const before = scale();
    view.zoom = Math.min(400, Math.max(0.5, view.zoom * factor));
    const after = scale();
    view.x += (x - canvas.clientWidth / 2) * (1 / before - 1 / after);
    view.y -= (y - canvas.clientHeight / 2) * (1 / before - 1 / after);
    later();
  };
  const move = (dx, dy) => { view.x -= dx / scale(); view.y += dy / scale(); later(); };
  const all = () => { Object.assign(view, { x: 0, y: 0, zoom: 1 }); later(); };
  const middle = () => choose(nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity));

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    choose(nearest(event.offsetX, event.offsetY, 14));
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = pointers.get(event.pointerId);
    if (!last) { if (event.pointerType === "mouse") choose(nearest(event.offsetX, event.offsetY, 10)); return; }
    const now = [event.offsetX, event.offsetY];
    if (pointers.size === 1) move(now[0] - last[0], now[1] - last[1]);
    if (pointers.size === 2) {
      const [, other] = [...pointers].find(([id]) => id !== event.pointerId);
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      if (apart(last) > 0) zoom(apart(now) / apart(last), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    pointers.set(event.pointerId, now);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  }
  canvas.addEventListener("dblclick", (event) => zoom(2, event.offsetX, event.offsetY));
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0), ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40),
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": all,
      Enter: () => { if (chosen >= 0) location.href = tip.href; },
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    if (event.key !== "Enter") middle();
  });
  canvas.addEventListener("focus", () => { if (chosen < 0 && canvas.matches(":focus-visible")) middle(); });
  for (const button of frame.querySelectorAll("[data-do]")) {
    button.addEventListener("click", () => ({ in: () => zoom(1.5), out: () => zoom(1 / 1.5), all })[button.dataset.do]());
  }
  const legend = document.querySelector(".legend");
  const names = () => {
    legend.replaceChildren();
    const lines = data.legend.map((text, at) => [text, palette[at]]);
    if (data.legend.length && data.others) lines.push(["others, or none", palette.other]);
    for (const [text, colour] of lines) {
      const line = document.createElement("li"), dot = document.createElement("i");
      dot.style.background = colour;
      line.append(dot, text);
      legend.append(line);
    }
  };
  const again = () => { colours(); names(); later(); };
  document.addEventListener("theme", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(later).observe(canvas);
  again();
});
