/** The table of passes, and the sites of the chosen one. */

/** Lists longer than this start folded. */
const MANY = 6;

const passesTab = {
  start() {
    const body = byId("passes-body");
    const most = Math.max(1, ...report.passes.map((pass) => pass.before));
    const slowest = Math.max(0.001, ...report.passes.map((pass) => pass.milliseconds));
    report.passes.forEach((pass, i) => body.append(this.row(pass, i, most, slowest)));
    byId("passes-summary").textContent = this.summary();
    const first = report.passes.findIndex((pass) => pass.matches || pass.near_misses.length);
    if (report.passes.length) this.choose(Math.max(first, 0));
  },

  summary() {
    const { passes } = report;
    if (!passes.length) return "No pass ran.";
    const misses = passes.reduce((sum, pass) => sum + pass.near_misses.length, 0);
    const total = passes.reduce((sum, pass) => sum + pass.milliseconds, 0);
    return `${plural(passes.length, "pass")} took ${count(passes[0].before)} ops to ${count(passes.at(-1).after)} in ${count(Math.round(total))} ms; ${plural(misses, "near miss")}.`;
  },

  row(pass, i, most, slowest) {
    const gone = pass.before - pass.after;
    const ops = el(
      "span",
      { class: "shrink", title: `${pass.before} → ${pass.after}` },
      el("span", { class: "kept", style: `width:${(100 * Math.min(pass.after, pass.before)) / most}%` }),
      el("span", { class: gone >= 0 ? "gone" : "came", style: `width:${(100 * Math.abs(gone)) / most}%` }),
    );
    const button = el("button", { class: "link", text: pass.name, onclick: () => this.choose(i) });
    return el(
      "tr",
      { "data-pass": i, onclick: () => this.choose(i) },
      el("td", { class: "number muted", text: i + 1 }),
      el("td", {}, button),
      el("td", { text: pass.stage }),
      el("td", {}, el("span", { class: `numerics ${pass.numerics}`, text: pass.numerics })),
      el("td", { class: "number", text: pass.matches ? count(pass.matches) : "–" }),
      el("td", {
        class: `number ${pass.near_misses.length ? "warn" : "muted"}`,
        text: pass.near_misses.length ? count(pass.near_misses.length) : "–",
      }),
      el("td", { class: "number", text: `${count(pass.before)} → ${count(pass.after)}` }),
      el("td", { class: "wide" }, ops),
      el(
        "td",
        { class: "number" },
        el(
          "span",
          { class: "meter", style: `--part:${pass.milliseconds / slowest}` },
          pass.milliseconds >= 100 ? count(Math.round(pass.milliseconds)) : pass.milliseconds.toFixed(1),
        ),
      ),
    );
  },

  choose(index) {
    const pass = report.passes[index];
    for (const row of byId("passes-body").children)
      row.toggleAttribute("aria-current", Number(row.dataset.pass) === index);
    const places = (items, text) =>
      items.map((item) =>
        el(
          "li",
          {},
          el(
            "button",
            { class: "link", onclick: () => showSite(index, item.place ?? item) },
            el("code", { text: item.place ?? item }),
          ),
          text(item),
        ),
      );
    const grouped = [...groupedSites(pass.sites)];
    fill(
      byId("sites"),
      el(
        "header",
        {},
        el("h3", { text: pass.name }),
        el("span", { class: `numerics ${pass.numerics}`, text: pass.numerics }),
        el("button", { class: "primary", text: "Show in the graph", onclick: () => showSite(index, null) }),
      ),
      el("h4", { text: `${plural(pass.matches, "match")}` }),
      pass.matches && !pass.sites.length ? el("p", { class: "muted", text: "This pass does not say where." }) : null,
      ...grouped.map(([name, sites]) =>
        sites.length === 1
          ? el(
              "ul",
              { class: "places" },
              places(sites, () => null),
            )
          : el(
              "details",
              { class: "places" },
              el("summary", {}, el("code", { text: name }), el("span", { class: "muted", text: ` ×${sites.length}` })),
              el(
                "ul",
                {},
                places(sites, () => null),
              ),
            ),
      ),
      el("h4", { text: `${plural(pass.near_misses.length, "near miss")}` }),
      pass.near_misses.length ? null : el("p", { class: "muted", text: "Nothing nearly matched." }),
      ...[...groupedMisses(pass.near_misses)].map(([reason, misses]) =>
        el(
          "details",
          { class: "miss", open: misses.length <= MANY },
          el(
            "summary",
            { class: "reason" },
            reason,
            el("span", { class: "muted", text: misses.length > 1 ? ` ×${misses.length}` : "" }),
          ),
          el(
            "ul",
            { class: "places" },
            places(misses, (miss) =>
              miss.reason === reason ? null : el("div", { class: "muted", text: miss.reason }),
            ),
          ),
        ),
      ),
    );
    byId("sites").scrollTop = 0;
  },
};

/** Sites by what they have in common over layers, `model.layers.*.mlp`. */
function groupedSites(sites) {
  const groups = new Map();
  for (const site of sites) {
    const name = site.replace(/\.\d+(?=\.|$)/g, ".*");
    groups.set(name, [...(groups.get(name) ?? []), site]);
  }
  return groups;
}

/** Near misses by reason, whichever values a reason names. */
function groupedMisses(misses) {
  const groups = new Map();
  for (const [place, reason] of misses) {
    const general = reason.replace(/%[\w.]+/g, "%…");
    groups.set(general, [...(groups.get(general) ?? []), { place, reason }]);
  }
  for (const [general, found] of [...groups]) {
    if (found.length > 1) continue;
    groups.delete(general);
    groups.set(found[0].reason, found);
  }
  return groups;
}

/** Go to the graph tab, to pass `index`, to a place if one is given. */
function showSite(index, place) {
  showTab("graph", false, index + 1);
  graphTab.choose(index + 1);
  if (place) graphTab.goTo(place);
  else graphTab.nextChange();
}
