// The browser of samples. What models and data sets say is text, never markup.
(function () {
  "use strict";
  const source = document.getElementById("data");
  if (!source) {
    return;
  }
  const data = JSON.parse(source.textContent);
  const PAGE = 10; // cards at a time
  const ANSWERS = 8; // answers of a card, until all are asked for
  const PADDING = "#7a7468"; // CLIP's mean colour, with which models make an image square
  const MODEL = 0, SETTING = 1, TEXT = 2, VALUE = 3, KEPT = 4, OF = 5;
  const byId = (id) => document.getElementById(id);
  const control = {
    task: byId("f-task"), model: byId("f-model"), outcome: byId("f-outcome"),
    setting: byId("f-setting"), disagree: byId("f-disagree"), text: byId("f-text"),
  };
  let found = [];
  let start = 0; // the first card that is shown, among those found
  let opened = null; // what folds the one card that shows all answers

  function make(tag, options, ...children) {
    const { text, ...attributes } = options || {};
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    if (text !== undefined) {
      node.textContent = text;
    }
    node.append(...children);
    return node;
  }

  function drawn(tag, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) {
      node.setAttribute(name, value);
    }
    return node;
  }

  // How good an answer is, from 0 to 1; null where the task knows no full marks, or without value.
  function share(task, value) {
    return task.best === null || value === null ? null : value / task.best;
  }

  function isRight(task, value) {
    const part = share(task, value);
    return part === null ? null : part >= 0.5;
  }

  function unpruned(sample, model) {
    const base = sample.answers.find((a) => a[MODEL] === model && !data.settings[a[SETTING]].pruned);
    return base === undefined ? null : base[VALUE];
  }

  function fits(sample, answer, outcome) {
    const task = data.tasks[sample.task];
    if (answer === undefined || answer[VALUE] === null) {
      return false;
    }
    if (outcome === "right" || outcome === "wrong") {
      return isRight(task, answer[VALUE]) === (outcome === "right");
    }
    const base = unpruned(sample, answer[MODEL]);
    if (base === null || Math.abs(answer[VALUE] - base) < 1e-9) {
      return false;
    }
    return answer[VALUE] > base === (outcome === "better");
  }

  function haystack(sample) {
    const numbers = [sample.question, ...sample.references, ...sample.answers.map((a) => a[TEXT])];
    const task = data.tasks[sample.task];
    const texts = Array.from(new Set(numbers), (number) => data.texts[number]);
    return [task.name, task.id, `document ${sample.doc}`, ...texts].join("\n").toLowerCase();
  }

  function matches(sample) {
    const [model, setting] = [Number(control.model.value), Number(control.setting.value)];
    const outcome = control.outcome.value;
    const wanted = control.text.value.trim().toLowerCase();
    const answer = sample.answers.find((a) => a[MODEL] === model && a[SETTING] === setting);
    return (
      (control.task.value === "" || sample.task === Number(control.task.value)) &&
      (!control.disagree.checked || sample.disagree) &&
      (outcome === "" || fits(sample, answer, outcome)) &&
      (wanted === "" || sample.haystack.includes(wanted))
    );
  }

  // Returns what is said of a value, and its class.
  function judged(task, value) {
    const part = share(task, value);
    if (value === null) {
      return ["–", ""];
    }
    if (part === null) {
      return [`${(value * task.scale).toFixed(task.digits)} ${task.metric}`, ""];
    }
    if (part >= 0.995) {
      return ["✓ right", "good"];
    }
    return part <= 0.005 ? ["✗ wrong", "bad"] : [`${Math.round(100 * part)} %`, "mixed"];
  }

  function unpacked(base64, count) {
    const bytes = atob(base64);
    return Array.from({ length: count }, (_, i) => (bytes.charCodeAt(i >> 3) >> (7 - (i & 7))) & 1);
  }

  // The frame that a grid of patches covers: a square one covers the image padded to a square.
  function frameOf(picture, kept) {
    const square = kept !== null && kept.grid[0] === kept.grid[1];
    const side = Math.max(picture.width, picture.height);
    return square ? [side, side] : [picture.width, picture.height];
  }

  function viewOf(picture, kept, label) {
    const [wide, high] = frameOf(picture, kept);
    const svg = drawn("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": label });
    const [x, y] = [(wide - picture.width) / 2, (high - picture.height) / 2];
    if (x || y) {
      svg.append(drawn("rect", { width: wide, height: high, fill: PADDING }));
    }
    const { width, height } = picture;
    svg.append(drawn("image", { x, y, width, height, href: picture.uri }));
    return svg;
  }

  // Draws over an image what a setting drops, and the borders of what it keeps.
  function overlay(svg, picture, kept, mask, colour) {
    const [wide, high] = frameOf(picture, kept);
    const [rows, columns] = kept.grid;
    const [w, h] = [wide / columns, high / rows];
    const at = (r, c) => r >= 0 && c >= 0 && r < rows && c < columns && mask[r * columns + c] === 1;
    let dropped = "", borders = "";
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const [x, y] = [c * w, r * h];
        if (!at(r, c)) {
          dropped += `M${x} ${y}h${w}v${h}h${-w}z`;
          continue;
        }
        borders += at(r - 1, c) ? "" : `M${x} ${y}h${w}`;
        borders += at(r + 1, c) ? "" : `M${x} ${y + h}h${w}`;
        borders += at(r, c - 1) ? "" : `M${x} ${y}v${h}`;
        borders += at(r, c + 1) ? "" : `M${x + w} ${y}v${h}`;
      }
    }
    const line = { fill: "none", stroke: colour, "stroke-linecap": "square" };
    svg.append(
      drawn("path", { d: dropped, fill: "#fff", opacity: 0.74, "data-overlay": "" }),
      drawn("path", { d: borders, ...line, "stroke-width": wide / 110, "data-overlay": "" }),
    );
  }

  function maskOf(kept, model, setting) {
    const set = kept && kept.sets.find((one) => one[0] === model && one[1] === setting);
    return set ? unpacked(set[2], kept.grid[0] * kept.grid[1]) : null;
  }

  // Shows the patches of one setting on all images of a card; of null, the images alone.
  function show(card, sample, model, setting) {
    card.querySelectorAll("[data-overlay]").forEach((node) => node.remove());
    let said = "";
    card.querySelectorAll("svg").forEach((svg, place) => {
      const mask = setting === null ? null : maskOf(sample.kept[place], model, setting);
      if (mask) {
        const picture = data.pictures[sample.images[place]];
        overlay(svg, picture, sample.kept[place], mask, data.settings[setting].colour);
        const count = mask.reduce((sum, bit) => sum + bit, 0);
        said = `${data.settings[setting].label} keeps ${count} of ${mask.length} patches.`;
      }
    });
    card.querySelector(".says").textContent = said;
    card.querySelectorAll("button[data-setting]").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.setting) === setting));
    });
  }

  function answerRow(card, sample, answer) {
    const task = data.tasks[sample.task];
    const [model, number] = [answer[MODEL], answer[SETTING]];
    const setting = data.settings[number];
    const [said, kind] = judged(task, answer[VALUE]);
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = setting.pruned ? setting.colour : "var(--muted)";
    const name = make("th", { scope: "row" }, swatch, document.createTextNode(setting.label));
    const tokens = answer[OF] ? `${answer[KEPT]} / ${answer[OF]}` : "–";
    const button = make("td");
    if (sample.kept.some((kept) => maskOf(kept, model, number))) {
      const press = make("button", {
        type: "button", text: "patches", "data-setting": number, "aria-pressed": "false",
        "aria-label": `patches kept by ${setting.label}`,
      });
      press.addEventListener("click", () => {
        show(card, sample, model, press.getAttribute("aria-pressed") === "true" ? null : number);
      });
      button.append(press);
    }
    const text = data.texts[answer[TEXT]];
    const answered = text === "" ? { class: "nothing", text: "nothing" } : { dir: "auto", text };
    const row = make("tr", {}, name, make("td", { class: "answer" }, make("div", answered)),
      make("td", { class: `value ${kind}`, text: said }),
      make("td", { class: "tokens", text: tokens }), button);
    if (control.outcome.value !== "" && number === Number(control.setting.value)) {
      row.className = "chosen-setting";
    }
    return row;
  }

  function pictured(sample, name) {
    const side = make("div", { class: "side" });
    sample.images.forEach((number, place) => {
      const label = sample.images.length > 1 ? `image ${place + 1} of ${name}` : `image of ${name}`;
      const view = viewOf(data.pictures[number], sample.kept[place], label);
      side.append(make("div", { class: "view" }, view));
    });
    if (!sample.images.length) {
      side.append(make("p", { class: "says", text: "No image at hand." }));
    }
    const none = sample.images.length > 0 && sample.kept.every((kept) => kept === null);
    const said = none ? "Kept patches of this image were not recorded." : "";
    side.append(make("p", { class: "says", role: "status", text: said }));
    return side;
  }

  function referenced(sample) {
    if (!sample.references.length) {
      return make("dd", { text: "–" });
    }
    if (sample.references.length === 1) {
      return make("dd", { class: "text", dir: "auto", text: data.texts[sample.references[0]] });
    }
    const items = sample.references.map((n) => make("li", { dir: "auto", text: data.texts[n] }));
    return make("dd", {}, make("ul", {}, ...items));
  }

  // The answers that a card shows at first: unpruned, the chosen setting, then the first others.
  function fewOf(answers) {
    if (answers.length <= ANSWERS + 1) {
      return answers;
    }
    const chosen = Number(control.setting.value);
    const must = (a) => !data.settings[a[SETTING]].pruned || a[SETTING] === chosen;
    const kept = answers.filter(must).slice(0, ANSWERS);
    const rest = answers.filter((a) => !kept.includes(a)).slice(0, ANSWERS - kept.length);
    return answers.filter((a) => kept.includes(a) || rest.includes(a));
  }

  function cardOf(sample) {
    const name = `${data.tasks[sample.task].name}, document ${sample.doc}`;
    const card = make("article", { class: "sample", "aria-label": name });
    const head = make("h3", { text: name });
    if (sample.disagree) {
      head.append(make("span", { class: "tag", text: "settings disagree" }));
    }
    const question = make("dd", { class: "text", dir: "auto", text: data.texts[sample.question] });
    const about = make("dl", {}, make("dt", { text: "Question" }), question,
      make("dt", { text: "Reference" }), referenced(sample));
    const names = ["setting", "answer", "score", "tokens", "kept"];
    const heads = names.map((one) => make("th", { scope: "col", text: one }));
    const body = make("tbody");
    const table = make("table", { class: "answers" },
      make("thead", {}, make("tr", {}, ...heads)), body);
    card.append(pictured(sample, name),
      make("div", {}, head, about, make("div", { class: "scroll" }, table)));
    const answers = sample.answers.filter((a) => a[MODEL] === Number(control.model.value));
    const few = fewOf(answers);
    const rowsOf = (some) => some.map((answer) => answerRow(card, sample, answer));
    body.append(...rowsOf(few));
    if (few.length < answers.length) {
      const press = make("button", { type: "button", class: "all", "aria-expanded": "false" });
      const fold = (open) => {
        show(card, sample, null, null);
        body.replaceChildren(...rowsOf(open ? answers : few));
        press.setAttribute("aria-expanded", String(open));
        press.textContent = open ? `${few.length} answers` : `all ${answers.length} answers`;
      };
      fold(false);
      press.addEventListener("click", () => {
        const open = press.getAttribute("aria-expanded") === "false";
        if (opened) {
          opened(false); // one card at a time
        }
        fold(open);
        opened = open ? fold : null;
      });
      table.parentElement.after(make("p", {}, press));
    }
    return card;
  }

  // Shows a page of cards instead of the one before.
  function turn(to) {
    start = to;
    opened = null;
    const some = found.slice(start, start + PAGE);
    byId("list").replaceChildren(...some.map(cardOf));
    const which = some.length ? `${start + 1} to ${start + some.length}` : "none";
    byId("count").textContent =
      `${found.length} of ${data.samples.length} samples fit; ${which} are shown.`;
    byId("less").hidden = start === 0;
    byId("more").hidden = start + PAGE >= found.length;
  }

  function filter() {
    found = data.samples.filter(matches);
    control.setting.disabled = control.outcome.value === "";
    turn(0);
  }

  function leaf(by) {
    turn(start + by);
    byId("filters").scrollIntoView();
  }

  function choices(select, names) {
    select.append(...names.map((name, value) => make("option", { value, text: name })));
  }

  data.samples.forEach((sample) => {
    sample.haystack = haystack(sample);
  });
  choices(control.task, data.tasks.map((task) => `${task.name} (${task.shown})`));
  choices(control.model, data.models);
  choices(control.setting, data.settings.map((setting) => setting.label));
  const first = data.settings.findIndex((setting) => setting.pruned);
  control.setting.value = String(Math.max(first, 0));
  control.setting.options[Math.max(first, 0)].defaultSelected = true;
  byId("l-model").hidden = data.models.length < 2;
  const form = byId("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  byId("more").addEventListener("click", () => leaf(PAGE));
  byId("less").addEventListener("click", () => leaf(-PAGE));

  // report.html#samples&setting=NAME&model=NAME&task=ID shows what a setting answers wrong.
  function asked() {
    if (!location.hash.startsWith("#samples&")) {
      return;
    }
    const wanted = new URLSearchParams(location.hash.slice("#samples&".length));
    const place = {
      setting: data.settings.findIndex((one) => one.label === wanted.get("setting")),
      model: data.models.indexOf(wanted.get("model")),
      task: data.tasks.findIndex((one) => one.id === wanted.get("task")),
    };
    for (const [name, number] of Object.entries(place)) {
      if (number >= 0) {
        control[name].value = String(number);
      }
    }
    control.outcome.value = place.setting >= 0 ? "wrong" : "";
    filter();
    byId("samples").scrollIntoView();
  }

  window.addEventListener("hashchange", asked);
  filter();
  asked();
})();
