/** What is said of a node: in the note beside the pointer, and in the column beside the graph. */

function noteFor(box, marks) {
  if (!box.node) {
    const changed = [...tally(box, marks)].map(([kind, number]) => `${number} ${kind}`).join(", ");
    return [
      el("b", { text: box.title }),
      el("div", { text: box.detail }),
      changed ? el("div", { text: changed }) : null,
      el("div", { class: "muted", text: "click to open" }),
    ];
  }
  const { node } = box;
  const status = marks.changes.get(node.name);
  return [
    el("div", {}, el("b", { text: node.op }), status ? el("span", { class: `tag ${status}`, text: status }) : null),
    node.type ? el("code", { text: node.type }) : null,
    ...node.attributes.map((line) => el("code", { text: short(line, 90) })),
    node.where ? el("div", { class: "muted", text: node.where }) : null,
  ];
}

const short = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

/**
 * The column for a node as it is after `step`. `old`: the node before, where the step changed it; `go(node)` is called
 * for a value that is clicked.
 */
function describe(node, { status, old, step, go }) {
  const value = (n) =>
    el(
      "button",
      { class: "value", onclick: () => go(n) },
      el("code", { text: n.op === "return" ? "return" : `%${n.name}` }),
      el("span", { class: "muted", text: ` ${n.op === "return" ? "" : n.op}` }),
    );
  const row = (label, ...children) =>
    children.flat().length ? [el("dt", { text: label }), el("dd", {}, ...children)] : [];
  const typed = (kind, name, type) =>
    el(
      "div",
      { class: "typed" },
      el("i", { class: kind }),
      el("code", { text: name }),
      el("span", { class: "muted", text: ` ${type ?? ""}` }),
    );
  const rewired = old && old.row !== node.row;
  return [
    el(
      "h3",
      {},
      el("i", { class: "swatch", style: `background:${theme.category(categories[node.op])}` }),
      node.op,
      status ? el("span", { class: `tag ${status}`, text: status }) : null,
    ),
    el(
      "dl",
      {},
      row("type", node.type ? el("code", { text: node.type }) : []),
      row("module", node.where ? el("code", { text: node.where }) : []),
      row(
        "attributes",
        node.attributes.map((line) => el("div", {}, el("code", { text: line }))),
      ),
      row("reads", node.sources.map(value)),
      row(
        "weights",
        node.weights.map((name) => typed("weight", name, weightText(name, old ? step - 1 : step, step))),
      ),
      row(
        "inputs",
        node.inputs.map((name) => typed("input", name, report.graphs.inputs[name])),
      ),
      row("read by", node.users.map(value)),
    ),
    el("h4", { text: rewired ? "Statement, before and now" : "Statement" }),
    rewired ? el("pre", { class: "statement before", text: statementText(old) }) : null,
    el("pre", { class: "statement", text: statementText(node) }),
  ];
}

/** Type and layout of a weight; of one that a pass stored otherwise, both. */
function weightText(name, before, now) {
  const [was, is] = [weightAt(before, name), weightAt(now, name)];
  return was && was !== is ? `${was} → ${is}` : is;
}
