/** The kernels: launches, predicted and measured time, and the source of the chosen one. */

const kernelsTab = {
  phase: report.phases[0] ?? null,
  order: "launches",
  chosen: null,

  start() {
    byId("phases").hidden = report.phases.length < 2;
    byId("phases").append(
      ...report.phases.map((phase) =>
        el("button", { text: phase, "data-phase": phase, onclick: () => this.setPhase(phase) }),
      ),
    );
    if (this.phase) this.order = "predicted";
    this.table();
    if (report.kernels.length) this.choose(this.sorted()[0]);
  },

  setPhase(phase) {
    this.phase = phase;
    this.table();
  },

  columns() {
    const launches = (kernel) => Object.values(kernel.launches).reduce((a, b) => a + b, 0);
    const cost = (kernel, i) => kernel.costs[this.phase]?.[i] ?? null;
    const timed = (i) => ({ value: (k) => cost(k, i), text: (value) => (value === null ? "–" : time(value)) });
    const ratio = (kernel) => (cost(kernel, 1) ? cost(kernel, 0) / cost(kernel, 1) : null);
    return {
      kernel: { title: "kernel", value: (k) => k.name },
      launches: { title: "launches", value: launches, text: count, number: true },
      ...(this.phase && {
        predicted: { title: "predicted", ...timed(0), number: true, bar: "predicted" },
        measured: { title: "measured", ...timed(1), number: true, bar: "measured" },
        ratio: {
          title: "ratio",
          value: ratio,
          text: (value) => (value === null ? "–" : value.toFixed(2)),
          number: true,
        },
      }),
    };
  },

  sorted() {
    const { value, number } = this.columns()[this.order];
    return [...report.kernels].sort((a, b) =>
      number ? (value(b) ?? -1) - (value(a) ?? -1) : value(a).localeCompare(value(b)),
    );
  },

  table() {
    const columns = Object.entries(this.columns());
    const heads = columns.map(([key, column]) =>
      el(
        "th",
        {
          class: column.number && "number",
          "aria-sort": key === this.order ? (column.number ? "descending" : "ascending") : false,
        },
        el("button", { class: "link", text: column.title, onclick: () => this.sortBy(key) }),
      ),
    );
    byId("kernels-head").replaceChildren(el("tr", {}, heads));
    const most = Math.max(1e-9, ...report.kernels.flatMap((k) => k.costs[this.phase] ?? []).filter(Boolean));
    byId("kernels-body").replaceChildren(...this.sorted().map((kernel) => this.row(kernel, columns, most)));
    for (const button of byId("phases").children)
      button.setAttribute("aria-pressed", button.dataset.phase === this.phase);
    byId("kernels-summary").textContent = this.summary();
  },

  sortBy(key) {
    this.order = key;
    this.table();
  },

  summary() {
    const launches = report.memory.timelines
      .map((t) => `${plural(t.launches.length, "launch")} in ${t.function}`)
      .join(", ");
    const total = (i) => report.kernels.reduce((sum, k) => sum + (k.costs[this.phase]?.[i] ?? 0), 0);
    const times = this.phase
      ? ` A ${this.phase} step: ${time(total(0))} predicted${total(1) ? `, ${time(total(1))} measured` : ""}.`
      : " No times were given.";
    return `${plural(report.kernels.length, "kernel")}, ${launches}.${times}`;
  },

  row(kernel, columns, most) {
    const cells = columns.map(([key, { value, text, number, bar }]) => {
      const found = value(kernel);
      if (key === "kernel")
        return el(
          "td",
          {},
          el("i", { class: "swatch", style: `background:${opColour(kernel.op)}` }),
          el("button", { class: "link", onclick: () => this.choose(kernel) }, el("code", { text: kernel.name })),
        );
      const off = key === "ratio" && found !== null && (found < 0.8 || found > 1.25);
      const content =
        bar && found !== null
          ? el("span", { class: `meter ${bar}`, style: `--part:${found / most}`, text: text(found) })
          : text(found);
      return el("td", { class: `${number ? "number" : ""}${off ? " warn" : ""}` }, content);
    });
    return el(
      "tr",
      { "data-kernel": kernel.name, "aria-current": kernel === this.chosen, onclick: () => this.choose(kernel) },
      cells,
    );
  },

  choose(kernel) {
    this.chosen = kernel;
    for (const row of byId("kernels-body").children)
      row.toggleAttribute("aria-current", row.dataset.kernel === kernel.name);
    const library = kernel.library ? report.libraries[kernel.library] : "";
    fill(
      byId("source"),
      el("h3", {}, el("code", { text: kernel.name })),
      el("p", { class: "muted", text: `launched for ${kernel.origins.join(", ")}` }),
      kernel.source
        ? el("pre", { class: "code", tabindex: 0, "aria-label": "generated source" }, highlighted(kernel.source))
        : el("p", { class: "muted", text: "The engine ships no source of this kernel." }),
      library
        ? el(
            "details",
            { ontoggle: (event) => this.showLibrary(event.target, library) },
            el(
              "summary",
              {},
              el("code", { text: kernel.library }),
              el("span", { class: "muted", text: " which it is made from" }),
            ),
            el("pre", { class: "code library", tabindex: 0 }),
          )
        : null,
    );
    byId("source").scrollTop = 0;
  },

  showLibrary(details, text) {
    const pre = details.querySelector("pre");
    if (details.open && !pre.firstChild) pre.append(...highlighted(text));
  },
};

/** The colour of an op that may stand in no graph, as those of sampling do. */
const opColour = (op) => theme.category(categories[op] ?? "other");

const CODE =
  /(\/\/[^\n]*|\/\*[\s\S]*?\*\/)|("(?:[^"\\\n]|\\.)*")|(#\w+)|\b(\d[\w.']*)\b|\b(alignas|auto|bool|break|case|char|class|const|constexpr|continue|default|do|double|else|enum|extern|false|float|for|if|inline|int|namespace|noexcept|nullptr|private|public|requires|return|sizeof|static|static_assert|static_cast|reinterpret_cast|struct|switch|template|true|typename|using|void|volatile|while|u?int(?:8|16|32|64)_t|size_t|bf16)\b/g;
const CODE_CLASSES = ["comment", "string", "macro", "digits", "keyword"];

/** C++ text as nodes, lightly coloured. */
function highlighted(text) {
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(CODE)) {
    const kind = CODE_CLASSES[match.slice(1).findIndex((group) => group !== undefined)];
    parts.push(text.slice(last, match.index), el("span", { class: kind, text: match[0] }));
    last = match.index + match[0].length;
  }
  parts.push(text.slice(last));
  return parts;
}
