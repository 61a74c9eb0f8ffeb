/** Memory: the arenas, what stands in them when, and what weights and key-value memory take. */

const DEFAULT_CAPACITY = { T: 512, R: 64, S: 64, B: 64, fixed: 1 };
const SYMBOL_NAMES = { T: "tokens", R: "rows of logits", S: "sequences", B: "block-table columns" };

const memoryTab = {
  start() {
    this.chart = new MemoryChart(byId("arena"), (launch, buffer) => this.at(launch, buffer));
    this.capacity = { ...DEFAULT_CAPACITY };
    this.choices();
    for (const [button, factor] of [
      ["arena-in", 1.6],
      ["arena-out", 1 / 1.6],
    ]) {
      byId(button).addEventListener("click", () => this.timeline && this.chart.zoom(factor));
    }
    this.weights();
    this.show();
  },

  /** (Function, arena) pairs that hold anything. */
  choices() {
    const select = byId("arena-choice");
    report.memory.timelines.forEach((timeline, index) => {
      for (const arena of Object.keys(report.memory.arenas)) {
        const number = timeline.buffers.filter((b) => b.arena === arena).length;
        if (number)
          select.append(
            el("option", {
              value: `${index}/${arena}`,
              text: `${timeline.function}: ${arenaName(arena)} (${plural(number, "buffer")})`,
            }),
          );
      }
    });
    const most = [...select.options].find((option) => option.value === "0/T");
    if (most) select.value = most.value;
    select.addEventListener("change", () => this.show());
    byId("capacity").addEventListener("input", (event) => {
      const value = Math.floor(Number(event.target.value));
      if (value >= 1) this.capacity[this.arena] = value;
      this.show(false);
    });
  },

  show(fill = true) {
    const choice = byId("arena-choice").value;
    if (!choice) {
      byId("arena-summary").textContent = "This engine's functions hold no buffers.";
      return;
    }
    const [index, arena] = choice.split("/");
    this.arena = arena;
    this.timeline = report.memory.timelines[index];
    this.buffers = this.timeline.buffers.filter((b) => b.arena === arena);
    const capacity = this.capacity[arena];
    const input = byId("capacity");
    input.parentElement.hidden = arena === "fixed";
    byId("capacity-name").textContent = SYMBOL_NAMES[arena] ?? arena;
    if (fill) input.value = capacity;
    const unit = report.memory.arenas[arena];
    const alone = this.buffers.reduce((sum, b) => sum + b.bytes, 0);
    this.chart.show(this.timeline, this.buffers, unit, capacity);
    const peak = Math.max(0, ...this.chart.live);
    byId("arena-summary").replaceChildren(
      this.tile(bytes(unit * capacity), `arena, ${count(unit)} bytes ${arena === "fixed" ? "in all" : `per ${arena}`}`),
      this.tile(bytes(peak * capacity), `most in use at once, ${((100 * peak) / unit).toFixed(0)}% of the arena`),
      this.tile(bytes(alone * capacity), `without sharing, ${(alone / unit).toFixed(1)} times as much`),
    );
    this.legend();
    this.at(this.chart.launch, null);
  },

  tile: (value, label) =>
    el("div", { class: "tile" }, el("b", { text: value }), el("span", { class: "muted", text: label })),

  legend() {
    const named = new Map();
    for (const { op } of this.buffers) named.set(opColour(op), (named.get(opColour(op)) ?? new Set()).add(op));
    byId("arena-legend").replaceChildren(
      ...[...named].map(([colour, ops]) =>
        el("span", {}, el("i", { class: "swatch", style: `background:${colour}` }), [...ops].join(", ")),
      ),
    );
  },

  /** Say what lives at a launch. */
  at(launch, hovered) {
    const place = byId("launch");
    if (launch === null) {
      place.replaceChildren(
        el("p", {
          class: "muted",
          text: "Point at the chart, or use the arrow keys in it, to see what a launch holds.",
        }),
      );
      return;
    }
    const [kernel, origin] = this.timeline.launches[launch];
    const live = this.buffers.filter((b) => b.first <= launch && launch <= b.last).sort((a, b) => b.bytes - a.bytes);
    const { capacity, arena } = { capacity: this.capacity[this.arena], arena: this.arena };
    place.replaceChildren(
      el("h4", {}, `Launch ${launch}: `, el("code", { text: kernel })),
      el("p", { class: "muted", text: origin }),
      el("p", {
        text: `${plural(live.length, "buffer")} in the arena of ${arenaName(arena)}, ${bytes(live.reduce((s, b) => s + b.bytes, 0) * capacity)}`,
      }),
      el(
        "ul",
        { class: "buffers" },
        live.map((b) =>
          el(
            "li",
            { "aria-current": b === hovered },
            el("i", { class: "swatch", style: `background:${opColour(b.op)}` }),
            el("code", { text: b.name.split(":")[1] }),
            el("span", {
              class: "muted",
              text: ` ${bytes(b.bytes * capacity)}, ${b.first}–${b.last}${b.result ? ", result" : ""}`,
            }),
          ),
        ),
      ),
    );
  },

  weights() {
    const { weights, state_bytes: states } = report.memory;
    const total = weights.reduce((sum, w) => sum + w.bytes, 0);
    byId("weights-summary").textContent = `${bytes(total)} in ${plural(
      weights.reduce((sum, w) => sum + w.count, 0),
      "tensor",
    )}`;
    byId("weights-body").append(
      ...weights.map((w) =>
        el(
          "tr",
          {},
          el("td", {}, el("code", { text: w.name })),
          el("td", { class: "number", text: `×${w.count}` }),
          el(
            "td",
            { class: "number" },
            el("span", { class: "meter", style: `--part:${w.bytes / weights[0].bytes}`, text: bytes(w.bytes) }),
          ),
        ),
      ),
    );
    byId("states-summary").textContent =
      Object.entries(states)
        .map(([name, size]) => `${name}: ${bytes(size)} per token`)
        .join("; ") || "none";
  },
};

const arenaName = (arena) => (arena === "fixed" ? "fixed size" : (SYMBOL_NAMES[arena] ?? arena));
