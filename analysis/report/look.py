"""How a report looks and what it does in a browser: its own rules and its script, as text."""

from __future__ import annotations

from featlab.analysis.demo.html_parts import BASE_STYLE

__all__ = ["SCRIPT", "STYLE"]

STYLE = (
    BASE_STYLE
    + """\
html { scroll-padding-top: 1rem; }
body { max-width: 84rem; overflow-wrap: break-word; }
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth; } }
a { color: var(--mark); text-underline-offset: .15em; }
a:focus-visible, button:focus-visible, summary:focus-visible, [tabindex]:focus-visible {
  outline: 3px solid var(--mark); outline-offset: 2px; border-radius: 3px; }
.skip { position: absolute; left: -99rem; }
.skip:focus { left: 1rem; top: .5rem; padding: .4rem .7rem; background: var(--back); z-index: 3; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
html:not(.js) .scripted { display: none; }
h2 { font-size: 1.4rem; margin: 0 0 .5rem; line-height: 1.25; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; line-height: 1.3; }
main { min-width: 0; }
section { padding: 2rem 0 1rem; border-top: 1px solid var(--line); }
section:first-child { border-top: 0; padding-top: .5rem; }
ul { padding-left: 1.1rem; margin: .5rem 0; max-width: 48rem; }
li { margin: .25rem 0; }
.from { color: var(--soft); font-size: .84rem; margin-top: 0; max-width: none; overflow-wrap: anywhere; }
.note ul { margin: 0; }
nav summary { font-weight: 600; cursor: pointer; }
nav ol { list-style: none; padding: 0; margin: .4rem 0; font-size: .9rem; }
nav li { margin: 0; }
nav a { display: block; padding: .25rem 0; color: inherit; text-decoration: none; }
nav a:hover { color: var(--mark); text-decoration: underline; }
.layout > nav { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem;
  margin: 1rem 0; }
@media (min-width: 64rem) {
  .layout { display: grid; grid-template-columns: 14rem minmax(0, 1fr); gap: 2.5rem; }
  .layout > nav { position: sticky; top: 1rem; align-self: start; max-height: calc(100vh - 2rem); overflow-y: auto;
    background: none; border: 0; padding: 0; margin: .5rem 0 0; }
  nav summary { list-style: none; cursor: default; pointer-events: none; }
  nav summary::-webkit-details-marker { display: none; }
}
.jump { font-size: .84rem; max-width: none; }
.scroll { margin: 1.5rem 0 .5rem; width: fit-content; max-width: 100%; min-width: min(100%, 36rem); }
caption { text-align: left; padding: .55rem .45rem .3rem; }
caption h3 { display: inline-block; position: sticky; left: .45rem; margin: 0;
  max-width: min(40rem, calc(100vw - 3.5rem)); }
/* Borders of joined cells would stay behind when a column sticks. */
table { border-collapse: separate; border-spacing: 0; }
thead th { position: relative; }
th[scope=row] { font-weight: 400; }
.settings :is(th, td) { vertical-align: top; }
tbody tr:hover > * { background: var(--card); }
td b, th b { color: var(--mark); }
.words { white-space: normal; min-width: 8rem; max-width: 22rem; }
.name { position: sticky; left: 0; background: var(--back); min-width: 13rem; box-shadow: 1px 0 0 var(--line); }
thead .name { z-index: 1; }
tr.group > * { border-top: 1px solid var(--line); }
tr.again > .setting { visibility: hidden; font-size: 0; }
th button { font: inherit; color: inherit; text-align: inherit; background: none; border: 0; margin: 0; padding: 0;
  width: 100%; cursor: pointer; }
th button:hover { color: var(--mark); }
th button:focus-visible { outline-offset: 0; }
th[aria-sort]:not([aria-sort=none]) { color: var(--text); }
th[aria-sort] button::after { position: absolute; right: .02rem; bottom: .45rem; font-size: .45rem; }
th[aria-sort=ascending] button::after { content: "\\25B2"; content: "\\25B2" / ""; }
th[aria-sort=descending] button::after { content: "\\25BC"; content: "\\25BC" / ""; }
thead th.words[aria-sort] button::after { position: static; margin-left: .3rem; }
.files { font-size: .84rem; margin: .4rem 0 0; max-width: none; color: var(--soft); }
.files a, .jump a { display: inline-block; padding: .15rem .1rem; margin-right: .7rem; }
figure { margin: 2rem 0 0; }
figure h3 { margin: 0 0 .5rem; }
.picture { overflow-x: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; }
.picture img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
dl { max-width: 60rem; margin: .4rem 0 1rem; }
.copied button { font: inherit; font-size: .84rem; padding: .25rem .8rem; color: var(--text); background: var(--back);
  border: 1px solid var(--soft); border-radius: 4px; cursor: pointer; }
.copied pre { margin-top: .5rem; }
main details { margin: 1rem 0; }
main summary { cursor: pointer; font-size: .9rem; padding: .2rem 0; }
@media (max-width: 40rem) {
  body { padding-top: 1rem; }
  ul { padding-left: 1rem; }
  .setting { display: none; }
  .name { min-width: 8.5rem; max-width: 11rem; }
  tbody tr:not(.again) > .name[data-group]::before { content: attr(data-group); display: block; color: var(--soft);
    font-size: .7rem; line-height: 1.3; }
  .large img { max-width: none; width: 42rem; }
  .files a { padding: .4rem .2rem; }
  nav a { padding: .45rem 0; }
  .copied button { padding: .5rem 1rem; }
}
@page { size: A4; margin: 14mm; }
@page lying { size: A4 landscape; margin: 12mm; }
@media print {
  :root { --text: #000; --soft: #444; --back: #fff; --card: #fff; --line: #bbb; --mark: #005a8c; --warn: #fff;
    color-scheme: light; }
  html { font-size: 9.5pt; }
  body { padding: 0; max-width: none; }
  nav, .files, .jump, .skip, .scripted, .copied button { display: none !important; }
  .layout { display: block; }
  .scroll, .picture, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  details pre { columns: 2; font-size: 6pt; line-height: 1.35; }
  .scroll { border: 0; }
  .wide { page: lying; }
  .wide table { font-size: 5.5pt; }
  .wide :is(th, td) { padding: .15rem .2rem; white-space: normal; min-width: 0; }
  table { font-size: 7.5pt; }
  .name { position: static; }
  .words { min-width: 0; }
  figure, tr, .note { break-inside: avoid; }
  h2, h3, caption, thead { break-after: avoid; }
  .picture { border: 0; padding: 0; }
  .picture img { max-height: 240mm; width: auto; max-width: 100%; }
}
"""
)

SCRIPT = """\
"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // The number that a cell begins with: "78.3 [70, 81]", "12/3/1" and "61.2*" have one, a dash or "failed" has none.
  const number = text => {
    const found = /^[\\s\\[(<>]*([-\\u2212+]?\\d[\\d,]*(\\.\\d+)?(e[-+]?\\d+)?)/i.exec(text);
    if (!found) return null;
    const value = Number(found[1].replace(/,/g, "").replace("\\u2212", "-"));
    return text.trim().startsWith("<") ? value - Math.abs(value) * 1e-6 : value;
  };
  // Names, with the numbers in them compared as numbers.
  const parts = text => text.trim().normalize("NFKD").toLowerCase().match(/\\d+|\\D+/g) || [];
  const byName = (a, b) => {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      const [x, y] = [a[i], b[i]], numbers = /^\\d/.test(x) && /^\\d/.test(y);
      const order = numbers ? Number(x) - Number(y) : x < y ? -1 : x > y ? 1 : 0;
      if (order) return order;
    }
    return a.length - b.length;
  };

  const sortable = table => {
    const body = table.tBodies[0], heads = all("thead th", table), first = [...body.rows];
    const grouped = table.classList.contains("grouped");
    const sort = (column, direction) => {
      const text = row => row.cells[column].textContent;
      let rows = first;
      if (direction !== "none") {
        const sign = direction === "ascending" ? 1 : -1;
        let keys = new Map(first.map(row => [row, number(text(row))])), compare = (a, b) => a - b;
        if (heads[column].classList.contains("words") || first.every(row => keys.get(row) === null)) {
          keys = new Map(first.map(row => [row, parts(text(row))]));
          compare = byName;
        }
        const has = row => keys.get(row) !== null;
        rows = first.filter(has).sort((a, b) => sign * compare(keys.get(a), keys.get(b)));
        rows.push(...first.filter(row => !has(row)));
      }
      heads.forEach((head, place) => head.setAttribute("aria-sort", place === column ? direction : "none"));
      // Rows of a group stand together in the first order and in that of the groups; else each names its own.
      const together = grouped && (direction === "none" || column === 0);
      let before = null;
      rows.forEach(row => {
        const group = row.cells[0].textContent;
        row.classList.toggle("again", together && group === before);
        row.classList.toggle("group", together && group !== before);
        before = group;
      });
      body.append(...rows);
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      const words = head.classList.contains("words");
      const cycle = words ? ["none", "ascending", "descending"] : ["none", "descending", "ascending"];
      button.addEventListener("click", () => {
        sort(column, cycle[(cycle.indexOf(head.getAttribute("aria-sort")) + 1) % cycle.length]);
      });
    });
  };
  all("table.sorts").forEach(sortable);

  // A drawing is in the file once: what is shown is what is saved.
  all("a[data-drawing]").forEach(link => {
    link.href = document.getElementById(link.dataset.drawing).src;
  });

  all(".copied button").forEach(button => button.addEventListener("click", async () => {
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch {
      getSelection().selectAllChildren(text);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }));

  const contents = document.querySelector("nav details"), wide = matchMedia("(min-width: 64rem)");
  const fold = () => { contents.open = wide.matches; };
  fold();
  wide.addEventListener("change", fold);
  contents.addEventListener("click", event => {
    if (!wide.matches && event.target.closest("a")) contents.open = false;
  });

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("main details:not([open])");
    closed.forEach(item => { item.open = true; });
  });
  addEventListener("afterprint", () => closed.forEach(item => { item.open = false; }));
})();
"""
