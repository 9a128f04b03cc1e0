// What pages gain from a script; all of them work without it. Text of records is set as text, never as HTML.
"use strict";

(() => {
  const stored = (() => { try { return localStorage.getItem("vecdb-theme"); } catch { return null; } })();
  if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
})();

document.addEventListener("DOMContentLoaded", () => {
  const theme = document.getElementById("theme");
  if (theme) {
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
      document.documentElement.dataset.theme = dark ? "light" : "dark";
      try { localStorage.setItem("vecdb-theme", dark ? "light" : "dark"); } catch { /* private windows keep nothing */ }
      document.dispatchEvent(new Event("theme"));
    });
  }
  document.addEventListener("keydown", (event) => {
    const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !writing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const first = document.querySelector("[data-focus]");
      if (first) { event.preventDefault(); first.focus(); }
    }
  });
  for (const select of document.querySelectorAll("[data-submit]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }
  for (const job of document.querySelectorAll("[data-job]")) follow(job);
});

// Ask how far a job is; when it has ended, show the page with what came of it.
function follow(job) {
  const id = job.dataset.job;
  const bar = job.querySelector("progress");
  const count = job.querySelector("[data-part=count]");
  const stop = job.querySelector("[data-part=stop]");
  if (stop) {
    stop.addEventListener("click", () => {
      stop.disabled = true;
      fetch("/job/stop", { method: "POST", body: new URLSearchParams({ id }) });
    });
  }
  const ask = async () => {
    const answer = await fetch(`/job?id=${encodeURIComponent(id)}`).catch(() => null);
    if (answer && answer.ok) {
      const found = await answer.json();
      if (found.state !== "running") return location.reload();
      if (found.total) {
        bar.max = found.total;
        bar.value = found.done;
        count.textContent = `${found.done.toLocaleString("en")} of ${found.total.toLocaleString("en")} ${found.unit}`;
      }
    } else if (answer && answer.status === 404) {
      return location.reload();
    }
    setTimeout(ask, 400);
  };
  setTimeout(ask, 250);
}
