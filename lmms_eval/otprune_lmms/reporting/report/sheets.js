// Long tables: their rows are data, of which a page holds some. What they say is text, never markup.
(function () {
  "use strict";
  const ROWS = 25;
  const TEXT = 0, VALUE = 1, KIND = 2;

  function rowOf(fields) {
    const row = document.createElement("tr");
    fields.forEach((field, place) => {
      const cell = document.createElement(place ? "td" : "th");
      if (!place) {
        cell.setAttribute("scope", "row");
      }
      if (field[KIND] && place) {
        cell.className = field[KIND];
      }
      cell.setAttribute("data-value", field[VALUE]);
      cell.textContent = field[TEXT];
      row.append(cell);
    });
    return row;
  }

  function makePaged(sheet) {
    const table = sheet.querySelector("table.paged");
    const all = JSON.parse(sheet.querySelector("script.rows").textContent);
    const heads = Array.from(table.tHead.rows[0].cells);
    const [earlier, next] = sheet.querySelectorAll(".turn button");
    let rows = all;
    let first = 0;

    function draw() {
      const shown = rows.slice(first, first + ROWS);
      table.tBodies[0].replaceChildren(...shown.map(rowOf));
      sheet.querySelector(".turn span").textContent =
        `rows ${first + 1} to ${first + shown.length} of ${rows.length}`;
      earlier.disabled = first === 0;
      next.disabled = first + ROWS >= rows.length;
    }

    function turn(by) {
      first += by;
      draw();
    }

    earlier.addEventListener("click", () => turn(-ROWS));
    next.addEventListener("click", () => turn(ROWS));
    onSort(heads, (column, descending) => {
      rows = order(all.map((row) => row[column][VALUE]), descending).map((place) => all[place]);
      first = 0;
      draw();
    });
    // What is folded is not built.
    if (sheet.tagName === "DETAILS") {
      sheet.addEventListener("toggle", () => {
        if (sheet.open) {
          draw();
        } else {
          table.tBodies[0].replaceChildren();
        }
      });
    } else {
      draw();
    }
  }

  document.querySelectorAll(".sheet").forEach((sheet) => {
    if (sheet.querySelector("table.paged")) {
      makePaged(sheet);
    }
  });
})();
