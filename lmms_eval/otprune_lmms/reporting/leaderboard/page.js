// Filters the lines of the leaderboard and draws those that are left.
(function () {
  "use strict";
  document.documentElement.classList.add("scripted");
  const byId = (id) => document.getElementById(id);
  const rows = Array.from(document.querySelectorAll("#table tbody tr"));
  const control = {
    model: byId("f-model"), suite: byId("f-suite"), folder: byId("f-folder"),
    share: byId("f-share"), axis: byId("f-axis"), text: byId("f-text"), better: byId("f-better"),
  };
  const AXES = {
    speed: { key: "speed", title: "times as fast as unpruned, a whole answer (measured)" },
    share: { key: "share", title: "visual tokens kept, %" },
    macs: { key: "macs", title: "multiply-adds of the prefill, % of unpruned" },
  };
  const HIGH = 420, LEFT = 60, RIGHT = 30, TOP = 16, BOTTOM = 46;
  const LABELLED = 30; // of more points no names are drawn
  const ROOM = 600; // nor in a narrower picture
  let drawnLast = [];

  function number(row, key) {
    const text = row.dataset[key];
    return text === undefined || text === "" ? null : Number(text);
  }

  function matches(row) {
    const most = control.share.value === "" ? 100 : Number(control.share.value);
    const share = number(row, "share");
    const wanted = control.text.value.trim().toLowerCase();
    const tests = Array.from(row.querySelectorAll("td.good, td.bad"));
    const behind = row.classList.contains("pruned") && Array.from(row.cells).some(
      (cell) => cell.textContent === "not separated" || cell.textContent === "worse");
    const ahead = tests.length > 0 && !behind;
    return (
      (control.model.value === "" || row.dataset.model === control.model.value) &&
      (control.suite.value === "" || row.dataset.suite === control.suite.value) &&
      (control.folder.value === "" || row.dataset.folder === control.folder.value) &&
      (share === null || share <= most || most >= 100) &&
      (!control.better.checked || ahead) &&
      (wanted === "" || row.cells[0].textContent.toLowerCase().includes(wanted))
    );
  }

  function drawn(tag, attributes, text) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    if (text !== undefined) {
      node.textContent = text;
    }
    return node;
  }

  // Some round numbers from low to high.
  function ticks(low, high) {
    const rough = (high - low) / 5 || 1;
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) {
      found.push(Number(at.toPrecision(6)));
    }
    return found;
  }

  function range(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const space = 0.06 * (high - low) || 1;
    return [low - space, high + space];
  }

  function draw(shown) {
    const axis = AXES[control.axis.value];
    const points = shown.filter((row) => number(row, axis.key) !== null);
    const svg = byId("plot");
    const WIDE = Math.max(byId("picture").clientWidth, 300);
    drawnLast = shown;
    svg.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
    svg.replaceChildren();
    byId("plot-says").textContent = points.length
      ? `Score of ${points.length} settings by ${axis.title}; bars are 95 % intervals, open circles controls.`
      : `None of these settings has ${control.axis.value === "speed" ? "a measured time" : "this number"}; choose another axis.`;
    byId("picture").classList.toggle("empty", points.length === 0);
    svg.style.display = points.length ? "" : "none";
    if (!points.length) {
      return;
    }
    const values = (keys) => points.flatMap((row) => keys.map((key) => number(row, key))).filter((v) => v !== null);
    const [x0, x1] = range(values([axis.key, ...(axis.key === "speed" ? ["speedLow", "speedHigh"] : [])]));
    const [y0, y1] = range(values(["score", "low", "high"]));
    const x = (v) => LEFT + ((v - x0) / (x1 - x0)) * (WIDE - LEFT - RIGHT);
    const y = (v) => HIGH - BOTTOM - ((v - y0) / (y1 - y0)) * (HIGH - TOP - BOTTOM);
    for (const at of ticks(x0, x1)) {
      svg.append(drawn("line", { class: "axis", x1: x(at), x2: x(at), y1: TOP, y2: HIGH - BOTTOM }),
        drawn("text", { x: x(at), y: HIGH - BOTTOM + 18, "text-anchor": "middle" }, String(at)));
    }
    for (const at of ticks(y0, y1)) {
      svg.append(drawn("line", { class: "axis", x1: LEFT, x2: WIDE - RIGHT, y1: y(at), y2: y(at) }),
        drawn("text", { x: LEFT - 8, y: y(at) + 4, "text-anchor": "end" }, String(at)));
    }
    svg.append(
      drawn("text", { x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 8, "text-anchor": "middle" }, axis.title),
      drawn("text", { x: 14, y: (TOP + HIGH - BOTTOM) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(TOP + HIGH - BOTTOM) / 2})` }, "score, % of unpruned"),
    );
    for (const row of points) {
      const [px, py] = [x(number(row, axis.key)), y(number(row, "score"))];
      const name = row.cells[0].getAttribute("data-value");
      const kind = ["control", "unpruned"].find((one) => row.classList.contains(one)) || "pruned";
      const [low, high] = [number(row, "low"), number(row, "high")];
      if (low !== null && high !== null) {
        svg.append(drawn("line", { class: "whisker", x1: px, x2: px, y1: y(low), y2: y(high) }));
      }
      if (axis.key === "speed" && number(row, "speedLow") !== null) {
        svg.append(drawn("line", { class: "whisker", x1: x(number(row, "speedLow")), x2: x(number(row, "speedHigh")), y1: py, y2: py }));
      }
      const point = drawn("circle", { class: kind, cx: px, cy: py, r: 4.5 });
      point.append(drawn("title", {}, `${name}, ${row.dataset.model}: ${row.dataset.score}`));
      svg.append(point);
      if (points.length <= LABELLED && WIDE >= ROOM) {
        const right = px > WIDE - 170;
        svg.append(drawn("text", { class: "name", x: px + (right ? -8 : 8), y: py - 6, "text-anchor": right ? "end" : "start" }, name));
      }
    }
  }

  function update() {
    const shown = [];
    for (const row of rows) {
      row.hidden = !matches(row);
      if (!row.hidden) {
        shown.push(row);
      }
    }
    byId("count").textContent = `${shown.length} of ${rows.length} settings`;
    draw(shown);
  }

  if (!rows.some((row) => number(row, "speed") !== null)) {
    control.axis.value = "share";
  }
  byId("filters").addEventListener("input", update);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(update));
  addEventListener("resize", () => draw(drawnLast));
  update();
})();
