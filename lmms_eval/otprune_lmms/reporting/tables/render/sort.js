// Sorts the rows of each block by a column: first the best way round for numbers, then the other.
"use strict";

// Returns the order of some values: numbers by size, texts by their letters, empty ones last.
function order(values, descending) {
  const sign = descending ? -1 : 1;
  const empty = (value) => value === null || value === "";
  return values
    .map((value, place) => ({ value, place }))
    .sort((a, b) => {
      if (empty(a.value) || empty(b.value)) {
        return empty(a.value) - empty(b.value) || a.place - b.place;
      }
      const [x, y] = [Number(a.value), Number(b.value)];
      const difference =
        Number.isNaN(x) || Number.isNaN(y) ? a.value.localeCompare(b.value) : x - y;
      return sign * difference || a.place - b.place;
    })
    .map((one) => one.place);
}

function sortTable(table, column, descending) {
  for (const body of table.tBodies) {
    const rows = Array.from(body.rows).filter((row) => !row.classList.contains("title"));
    const values = rows.map((row) => row.cells[column].getAttribute("data-value"));
    for (const place of order(values, descending)) {
      body.appendChild(rows[place]);
    }
  }
}

// Calls sort(column, descending) when the button of a heading is pressed.
function onSort(heads, sort) {
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.getAttribute("data-first");
      const other = first === "descending" ? "ascending" : "descending";
      const next = now === first ? other : first;
      for (const one of heads) {
        one.removeAttribute("aria-sort");
      }
      head.setAttribute("aria-sort", next);
      sort(column, next === "descending");
    });
  });
}

function makeSortable(table) {
  const heads = Array.from(table.tHead.rows[0].cells);
  onSort(heads, (column, descending) => sortTable(table, column, descending));
}

if (typeof document !== "undefined") {
  document.querySelectorAll("table.scores:not(.paged)").forEach(makeSortable);
}
