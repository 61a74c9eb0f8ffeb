/** The report's data, and the graphs unpacked from its tables. */
const report = JSON.parse(byId("report-data").textContent);

const { strings, statements, programs, categories } = report.graphs;
const unpacked = new Map();

/** The graph of one function after step `step` (0: as traced). Nodes are in program order. */
function graphAt(step, functionName) {
  const key = `${step}/${functionName}`;
  if (!unpacked.has(key)) unpacked.set(key, unpack(programs[step][functionName] ?? []));
  return unpacked.get(key);
}

function unpack(runs) {
  const nodes = [];
  for (let i = 0; i < runs.length; i += 2) {
    for (let row = runs[i]; row < runs[i] + runs[i + 1]; row += 1) nodes.push(nodeOf(row, nodes.length));
  }
  const byName = new Map(nodes.map((node) => [node.name, node]));
  for (const node of nodes) {
    for (const [, mark, name] of node.operands.join(" ").matchAll(/([%@])([\w.-]+)/g)) {
      const source = mark === "%" ? byName.get(name) : null;
      if (source) link(source, node);
      else if (mark === "@") add(node.weights, name);
      else add(node.inputs, name);
    }
  }
  return { nodes, byName };
}

function nodeOf(row, index) {
  const attributes = strings[statements.attributes[row]];
  return {
    row,
    index,
    name: strings[statements.name[row]],
    op: strings[statements.op[row]],
    type: strings[statements.type[row]],
    where: strings[statements.where[row]],
    attributes: attributes ? attributes.split("\n") : [],
    operands: statements.operands[row].map((s) => strings[s]),
    sources: [],
    users: [],
    weights: [],
    inputs: [],
  };
}

function add(list, value) {
  if (!list.includes(value)) list.push(value);
}

function link(source, user) {
  add(user.sources, source);
  add(source.users, user);
}

/** One statement as the text form prints it. */
function statementText(node) {
  const call = `${node.op}(${[...node.operands, ...node.attributes].join(", ")})`;
  return node.op === "return" ? `return ${node.operands.join(", ")}` : `%${node.name}: ${node.type} = ${call}`;
}

/** Type and layout of a weight after a step. */
function weightAt(step, name) {
  for (let i = step; i >= 0; i -= 1) if (name in report.graphs.weights[i]) return report.graphs.weights[i][name];
  return "";
}

/**
 * Names of values that pass `step` made, took away, or gave other operands or otherwise stored weights. Values keep
 * their names over a pass.
 */
function changes(before, after, step) {
  const restored = (node) =>
    node.weights.some((name) => step && name in report.graphs.weights[step] && weightAt(step - 1, name));
  const made = new Map();
  const gone = new Map();
  for (const node of after.nodes) {
    const old = before.byName.get(node.name);
    if (!old || old.op !== node.op) made.set(node.name, "added");
    else if (old.row !== node.row || restored(node)) made.set(node.name, "changed");
  }
  for (const node of before.nodes) {
    const fresh = after.byName.get(node.name);
    if (!fresh || fresh.op !== node.op) gone.set(node.name, "removed");
    else if (fresh.row !== node.row || restored(fresh)) gone.set(node.name, "changed");
  }
  return { before: gone, after: made };
}
