/** Tabs, and the address that names what is shown: `#graph/7` is the seventh pass in the graph tab. */

const TABS = { passes: passesTab, graph: graphTab, kernels: kernelsTab, memory: memoryTab };
const started = new Set();

/** `detail`: what the tab shows first, where the address says so. */
function showTab(name, focus = false, detail = null) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    byId(tab.dataset.tab).hidden = !chosen;
    if (chosen && focus) tab.focus();
  }
  tooltip.hide();
  if (!started.has(name)) {
    started.add(name);
    TABS[name].start(detail);
  }
  remember(name, name === "graph" ? graphTab.step : null);
}

function remember(name, detail) {
  history.replaceState(null, "", `#${name}${detail === null ? "" : `/${detail}`}`);
}

function openAddress() {
  const [name, detail] = location.hash.slice(1).split("/");
  const step = name === "graph" && /^\d+$/.test(detail ?? "") ? Number(detail) : null;
  const shown = started.has("graph");
  showTab(name in TABS ? name : "passes", false, step);
  if (shown && step !== null) graphTab.choose(step);
}

byId("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) showTab(tab.dataset.tab);
});
byId("tabs").addEventListener("keydown", (event) => {
  const names = Object.keys(TABS);
  const at = names.indexOf(document.activeElement.dataset.tab);
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && at >= 0) showTab(names[(at + by + names.length) % names.length], true);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input, select") || byId("graph").hidden) return;
  event.preventDefault();
  byId("search").focus();
});
addEventListener("hashchange", openAddress);
openAddress();
