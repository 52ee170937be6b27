"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  document.documentElement.classList.add("js");

  // The number that a cell begins with: "78.3 [70, 81]", "12/3/1" and "61.2*" have one, a dash or "failed" has none.
  const number = text => {
    const found = /^[\s\[(<>]*([-\u2212+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?)/i.exec(text);
    if (!found) return null;
    const value = Number(found[1].replace(/,/g, "").replace("\u2212", "-"));
    return text.trim().startsWith("<") ? value - Math.abs(value) * 1e-6 : value;
  };
  // Names, with the numbers in them compared as numbers.
  const parts = text => text.trim().normalize("NFKD").toLowerCase().match(/\d+|\D+/g) || [];
  const byName = (a, b) => {
    for (let i = 0; i < Math.min(a.length, b.length); i++) {
      const [x, y] = [a[i], b[i]], numbers = /^\d/.test(x) && /^\d/.test(y);
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
