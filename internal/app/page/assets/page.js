// Keeps the page fresh: fetches it anew and swaps what changed, so that neither
// the scroll position nor a tooltip is lost.
"use strict";
const every = 5000;

async function refresh() {
  if (document.hidden || document.querySelector(".hit:hover, .heat g:hover")) return;
  try {
    const res = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!res.ok) throw new Error(res.status);
    const next = new DOMParser().parseFromString(await res.text(), "text/html");
    for (const part of ["header", "main", "footer"]) {
      document.querySelector(part).replaceWith(next.querySelector(part));
    }
    document.title = next.title;
    document.body.classList.remove("stale");
  } catch {
    document.body.classList.add("stale");
  }
}
setInterval(refresh, every);
document.addEventListener("visibilitychange", refresh);
