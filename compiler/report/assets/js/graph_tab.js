/** The graph before and after a pass: the strip of passes, the tools, two panes, and the column of the chosen node. */

const graphTab = {
  step: 0,
  functionName: "forward",
  view: "both",
  found: -1,

  start(step) {
    this.folding = new Folding();
    const events = { changed: () => this.refold(), selected: (pane, node) => this.selected(pane, node) };
    this.panes = {
      before: new Pane(byId("canvas-before"), this.folding, events),
      after: new Pane(byId("canvas-after"), this.folding, events),
    };
    this.chosenPane = this.panes.after;
    this.functions();
    this.strip();
    this.tools();
    this.setView(innerWidth < 1000 ? "after" : "both");
    const first = report.passes.findIndex((pass) => pass.matches > 0);
    this.choose(step ?? (report.passes.length ? Math.max(first, 0) + 1 : 0));
  },

  get main() {
    return this.panes[this.view === "before" ? "before" : "after"];
  },

  // --- what is shown

  functions() {
    const names = [...new Set(programs.flatMap((program) => Object.keys(program)))];
    if (!names.includes(this.functionName)) [this.functionName] = names;
    const select = byId("function");
    select.append(...names.map((name) => el("option", { text: name })));
    select.parentElement.hidden = names.length < 2;
    select.addEventListener("change", () => {
      this.functionName = select.value;
      for (const pane of Object.values(this.panes)) pane.placed = false;
      this.choose(this.step);
    });
  },

  /** A column for every program: its height is the number of ops left. */
  strip() {
    const sizes = programs.map((_, step) => (step ? report.passes[step - 1].after : (report.passes[0]?.before ?? 0)));
    const most = Math.max(1, ...sizes);
    const strip = byId("strip");
    sizes.forEach((size, step) => {
      const pass = report.passes[step - 1];
      const name = pass?.name ?? "traced";
      const title = pass
        ? `${step}. ${name}: ${plural(pass.matches, "match")}, ${count(pass.before)} → ${count(pass.after)} ops`
        : `as traced: ${count(size)} ops`;
      const bar = el("span", { class: "bar" }, el("span", { style: `height:${(100 * size) / most}%` }));
      strip.append(
        el(
          "button",
          {
            class: pass && !pass.matches ? "column idle" : "column",
            title,
            "aria-label": title,
            "data-step": step,
            onclick: () => this.choose(step),
          },
          el("span", { class: "ops", text: count(size) }),
          bar,
          el("span", { class: "name", text: name }),
        ),
      );
    });
    strip.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      this.choose(this.step + by);
      strip.querySelector("[aria-current]").focus();
    });
  },

  /** Show pass `step` (1 is the first; 0: the traced program) where it first changed something. */
  choose(step) {
    this.step = Math.max(0, Math.min(programs.length - 1, step));
    for (const button of byId("strip").children) {
      const chosen = Number(button.dataset.step) === this.step;
      button.toggleAttribute("aria-current", chosen);
      if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    byId("view-tools").classList.toggle("inactive", this.step === 0);
    const after = graphAt(this.step, this.functionName);
    const before = this.step ? graphAt(this.step - 1, this.functionName) : after;
    const changed = changes(before, after, this.step);
    this.panes.before.show(before, changed.before);
    this.panes.after.show(after, changed.after);
    this.selected(this.chosenPane, this.chosenPane.marks.selected?.node ?? null);
    this.setView(this.view);
    this.captions();
    this.search();
    this.showFirstChange();
    if (location.hash.startsWith("#graph")) remember("graph", this.step);
  },

  /** Open what hides the first changed value of either graph, and bring both graphs there. */
  showFirstChange() {
    const { before, after } = this.panes;
    const first = { before: before.firstChange, after: after.firstChange };
    const place = (first.after ?? first.before)?.where;
    if (place === undefined) return;
    for (const [side, pane] of Object.entries(this.panes)) {
      const node = first[side] ?? pane.nodeAt(place);
      if (!node) continue;
      if (first[side]) this.folding.reveal(pane.tree, node);
      first[side] = node;
    }
    this.refold();
    for (const [side, pane] of Object.entries(this.panes))
      if (first[side]) pane.centre(pane.scene.boxOf[first[side].index]);
  },

  captions() {
    const pass = report.passes[this.step - 1];
    const names = {
      before: this.step > 1 ? report.passes[this.step - 2].name : "traced",
      after: pass?.name ?? "traced",
    };
    for (const [side, pane] of Object.entries(this.panes)) {
      const tallies = new Map();
      for (const kind of pane.marks.changes.values()) tallies.set(kind, (tallies.get(kind) ?? 0) + 1);
      const ops = pane.graph.nodes.filter((n) => n.op !== "return").length;
      const words = { removed: "goes", added: "comes", changed: "gets other operands or weights" };
      byId(`caption-${side}`).replaceChildren(
        el("b", { text: this.step ? `${side} ` : "" }),
        this.step && side === "after"
          ? names.after
          : side === "before"
            ? `after ${names.before}`.replace("after traced", "traced")
            : names.after,
        el("span", { class: "muted", text: ` · ${plural(ops, "op")}` }),
        ...[...tallies].map(([kind, number]) =>
          el("span", {
            class: `tag ${kind}`,
            title: words[kind],
            text: `${{ added: "+", removed: "−", changed: "~" }[kind]}${count(number)} ${kind}`,
          }),
        ),
      );
    }
  },

  setView(view) {
    this.view = view;
    const shown = this.step === 0 ? "after" : view;
    byId("panes").dataset.view = shown;
    for (const button of byId("view-tools").querySelectorAll("button"))
      button.setAttribute("aria-pressed", button.dataset.view === shown);
    for (const pane of Object.values(this.panes)) pane.draw();
  },

  refold() {
    for (const pane of Object.values(this.panes)) pane.rebuild();
  },

  // --- tools

  tools() {
    for (const button of byId("view-tools").querySelectorAll("button"))
      button.addEventListener("click", () => this.setView(button.dataset.view));
    const both = (act) => () => Object.values(this.panes).forEach(act);
    byId("zoom-in").addEventListener(
      "click",
      both((pane) => pane.zoom(ZOOM.step)),
    );
    byId("zoom-out").addEventListener(
      "click",
      both((pane) => pane.zoom(1 / ZOOM.step)),
    );
    byId("zoom-fit").addEventListener(
      "click",
      both((pane) => pane.fit()),
    );
    byId("zoom-home").addEventListener(
      "click",
      both((pane) => pane.home()),
    );
    byId("unfold").addEventListener("click", () => this.openAll());
    byId("fold").addEventListener("click", () => this.closeAll());
    byId("stacked").addEventListener("change", (event) => {
      this.folding.stacked = event.target.checked;
      this.refold();
    });
    const input = byId("search");
    input.addEventListener("input", () => this.search());
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.jump(event.shiftKey ? -1 : 1);
      else if (event.key === "Escape") {
        input.value = "";
        this.search();
      } else return;
      event.preventDefault();
    });
    byId("search-next").addEventListener("click", () => this.jump(1));
    byId("search-previous").addEventListener("click", () => this.jump(-1));
    byId("change-next").addEventListener("click", () => this.nextChange());
  },

  openAll() {
    for (const pane of Object.values(this.panes))
      for (const group of pane.tree.groups.values()) this.folding.open(group);
    this.refold();
    for (const pane of Object.values(this.panes)) pane.home();
  },

  closeAll() {
    this.folding.opened.clear();
    this.folding.closed.clear();
    this.refold();
    for (const pane of Object.values(this.panes)) pane.home();
  },

  search() {
    const text = byId("search").value;
    for (const pane of Object.values(this.panes)) pane.search(text);
    this.found = -1;
    this.sayFound();
  },

  sayFound() {
    const total = this.main.found.length;
    const searching = byId("search").value.trim() !== "";
    byId("found").textContent = !searching
      ? ""
      : total === 0
        ? "none"
        : this.found < 0
          ? `${count(total)}`
          : `${count(this.found + 1)} / ${count(total)}`;
  },

  jump(by) {
    const { found } = this.main;
    if (!found.length) return;
    this.found = this.found < 0 ? (by > 0 ? 0 : found.length - 1) : (this.found + by + found.length) % found.length;
    this.goToNode(this.main, found[this.found]);
    this.sayFound();
  },

  /** The next changed value below the selected one, of the side where more changes. */
  nextChange() {
    const sides = Object.values(this.panes).filter((pane) => this.view === "both" || pane === this.main);
    const pane = sides.sort((a, b) => b.marks.changes.size - a.marks.changes.size)[0];
    const changed = pane.graph.nodes.filter((node) => pane.marks.changes.has(node.name));
    if (!changed.length) return;
    const at = pane.marks.selected?.order ?? -1;
    this.goToNode(pane, changed.find((node) => node.index > at) ?? changed[0]);
  },

  /** Both panes go to a module path or value name. */
  goTo(place) {
    for (const pane of Object.values(this.panes)) {
      const node = pane.nodeAt(place);
      if (node) pane.goTo(node);
    }
  },

  goToNode(pane, node) {
    pane.goTo(node);
    const other = pane === this.panes.after ? this.panes.before : this.panes.after;
    const twin = other.graph.byName.get(node.name) ?? other.nodeAt(node.where);
    if (!twin) return;
    const box = other.scene.boxOf[twin.index];
    if (twin.name === node.name) other.mark(box);
    other.centre(box);
  },

  // --- the column

  selected(pane, node) {
    this.chosenPane = pane;
    const other = pane === this.panes.after ? this.panes.before : this.panes.after;
    const twin = node && other.graph.byName.get(node.name);
    other.mark(twin ? other.scene.boxOf[twin.index] : null);
    other.draw();
    const column = byId("details");
    column.classList.toggle("empty", !node);
    if (!node) {
      column.replaceChildren(...byId("details-help").content.cloneNode(true).children);
      return;
    }
    const status = pane.marks.changes.get(node.name);
    const old = status === "changed" ? this.panes.before.graph.byName.get(node.name) : null;
    const shown = status === "changed" ? this.panes.after.graph.byName.get(node.name) : node;
    const step = pane === this.panes.before && !old ? Math.max(0, this.step - 1) : this.step;
    const go = (to) => this.goToNode(pane, pane.graph.byName.get(to.name) ?? to);
    fill(column, ...describe(shown, { status, old, step, go }));
  },
};
