// Sorts and filters the tables, and hides variants. Without it the page is whole, and has no button that does nothing.
"use strict";
(() => {
  const LONG = 12; // rows from which on a table gets a filter
  const MISSING = ["", "–"];
  const alphabet = new Intl.Collator("en", { numeric: true });
  const boxes = [...document.querySelectorAll("#variants input")];
  const news = document.getElementById("news"); // what a screen reader is told of a change

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  const isHidden = (row) => (row.dataset.v || "").split(" ").some((number) => number && !boxes[number].checked);

  // Sorting: a click sorts upwards, the next downwards, the third restores the order of the report.

  function sortKey(cell, numeric) {
    if (numeric) return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return MISSING.includes(text) ? null : text;
  }

  function sorted(rows, column, numeric, way) {
    const keyed = rows.map((row) => ({ row, key: sortKey(row.cells[column], numeric) }));
    const sign = way === "ascending" ? 1 : -1;
    const known = keyed.filter(({ key }) => key !== null);
    known.sort((a, b) => sign * (numeric ? a.key - b.key : alphabet.compare(a.key, b.key)));
    return [...known, ...keyed.filter(({ key }) => key === null)].map(({ row }) => row);
  }

  function makeSortable(table, rows) {
    const headings = [...table.tHead.rows[0].cells];
    const next = { none: "ascending", ascending: "descending", descending: "none" };
    headings.forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = element("button", { type: "button", className: "sort" }, ...heading.childNodes);
      if (heading.title) button.setAttribute("aria-description", heading.title);
      heading.append(button);
      button.addEventListener("click", () => {
        const way = next[heading.getAttribute("aria-sort") || "none"];
        for (const other of headings) other.removeAttribute("aria-sort");
        if (way !== "none") heading.setAttribute("aria-sort", way);
        const numeric = heading.classList.contains("number");
        table.tBodies[0].append(...(way === "none" ? rows : sorted(rows, column, numeric, way)));
      });
    });
    table.caption.append(" (the headings are buttons that sort)");
  }

  // Filtering: a row stays when it has every word that was typed, and none of its variants is hidden.

  function makeFilterable(table, rows) {
    const words = rows.map((row) => row.textContent.toLowerCase());
    const input = element("input", { type: "search", autocomplete: "off", spellcheck: false });
    const count = element("span", { className: "count" });
    const name = element("span", { className: "spoken" }, ` of the table ${table.caption.textContent}`);
    if (rows.length >= LONG) {
      const label = element("label", {}, "Filter rows", name, " ", input);
      table.closest(".scroll").before(element("div", { className: "filter" }, label, count));
    }
    const refresh = () => {
      const wanted = input.value.toLowerCase().split(/\s+/);
      rows.forEach((row, index) => {
        row.hidden = isHidden(row) || !wanted.every((word) => words[index].includes(word));
      });
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = shown < rows.length ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
    };
    input.addEventListener("input", () => {
      refresh();
      news.textContent = count.textContent;
    });
    refresh();
    return refresh;
  }

  const refreshes = [];
  for (const table of document.querySelectorAll("table")) {
    const rows = [...table.tBodies[0].rows];
    if (!table.tHead || rows.length < 2) continue;
    refreshes.push(makeFilterable(table, rows));
    makeSortable(table, rows);
  }

  // Variants: where two share a colour, their part of a drawing goes with the last of them.

  function showVariants() {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.dataset.colour));
    for (const colour of new Set(boxes.map((box) => box.dataset.colour))) {
      for (const part of document.querySelectorAll(`svg.c${colour}, svg .c${colour}`)) {
        part.classList.toggle("off", !shown.has(colour));
      }
    }
    for (const refresh of refreshes) refresh();
    news.textContent = `${boxes.filter((box) => box.checked).length} of ${boxes.length} variants shown`;
  }

  if (boxes.length > 1) document.getElementById("variants").hidden = false;
  for (const box of boxes) box.addEventListener("change", showVariants);

  // Printing: paper cannot be unfolded.

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
})();
