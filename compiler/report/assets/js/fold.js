/** Groups of a graph by module path: layers, the modules inside them, and modules beside them. */

class Group {
  constructor(key, label, parent, isLayer) {
    Object.assign(this, { key, label, parent, isLayer, items: [], size: 0, first: Infinity, signature: "" });
  }

  get insideLayer() {
    return this.isLayer || Boolean(this.parent?.insideLayer);
  }
}

/** The module tree of a graph: its root, and its groups by module path. */
function foldTree(graph) {
  const root = new Group("", "", null, false);
  const groups = new Map();
  const groupOf = [];
  for (const node of graph.nodes) {
    const group = groupFor(node.where, root, groups);
    group.items.push(node);
    groupOf.push(group);
    for (let g = group; g; g = g.parent) {
      g.size += 1;
      g.first = Math.min(g.first, node.index);
    }
  }
  dissolveSingles(root, groupOf);
  for (const group of groups.values()) if (group.isLayer) group.signature = signatureOf(group, graph, groupOf);
  return { root, groups, groupOf };
}

function groupFor(where, root, groups) {
  const parts = where.split(".");
  const numbered = parts.findIndex((part) => /^\d+$/.test(part));
  const steps = numbered < 0 ? [where] : [parts.slice(0, numbered + 1).join("."), ...parts.slice(numbered + 1)];
  let group = root;
  for (const [depth, label] of steps.entries()) {
    if (!label) break;
    const key = group === root ? label : `${group.key}.${label}`;
    if (!groups.has(key)) {
      const child = new Group(key, label, group, depth === 0 && numbered >= 0);
      groups.set(key, child);
      group.items.push(child);
    }
    group = groups.get(key);
  }
  return group;
}

/** A module that holds one op is no group of its own. */
function dissolveSingles(group, groupOf) {
  group.items = group.items.map((item) => {
    if (!(item instanceof Group)) return item;
    dissolveSingles(item, groupOf);
    if (item.size > 1 || item.isLayer) return item;
    const [node] = item.items;
    groupOf[node.index] = group;
    return node;
  });
}

/** Text that equal layers share: their statements with layer numbers and outside names left out. */
function signatureOf(layer, graph, groupOf) {
  const inside = (group) => group === layer || (group.parent !== null && inside(group.parent));
  const members = graph.nodes.filter((node) => node.where.startsWith(layer.key) && inside(groupOf[node.index]));
  const numbers = new Map(members.map((node, i) => [node.name, i]));
  const digitless = (text) => text.replace(/\d+/g, "#");
  const operand = (text) =>
    text.replace(/([%@])([\w.-]+)/g, (_, mark, name) => {
      if (mark === "%" && numbers.has(name)) return `%${numbers.get(name)}`;
      return mark + (mark === "%" && graph.byName.has(name) ? "" : digitless(name));
    });
  return members
    .map((n) => [n.op, n.type, n.attributes, n.where.slice(layer.key.length), n.operands.map(operand)].join("|"))
    .join("\n");
}

/** Which groups are open, by module path; shared by the graphs before and after a pass. */
class Folding {
  constructor() {
    this.opened = new Set();
    this.closed = new Set();
    this.stacked = true;
  }

  isOpen(group) {
    if (this.opened.has(group.key)) return true;
    if (this.closed.has(group.key) || group.isLayer) return false;
    return group.insideLayer || group.size <= 6;
  }

  open(group) {
    this.opened.add(group.key);
    this.closed.delete(group.key);
  }

  close(group) {
    this.closed.add(group.key);
    this.opened.delete(group.key);
  }

  /** Open all that hides a node of `tree`. */
  reveal(tree, node) {
    for (let g = tree.groupOf[node.index]; g && g.parent; g = g.parent) if (!this.isOpen(g)) this.open(g);
  }
}

/** The items of a group with runs of equal closed layers joined: nodes, groups, and lists of groups. */
function stackedItems(group, folding) {
  const items = [...group.items].sort((a, b) => (a.first ?? a.index) - (b.first ?? b.index));
  if (!folding.stacked) return items;
  const joined = [];
  for (let i = 0; i < items.length;) {
    const run = longestRun(items, i, folding);
    joined.push(run.length > 1 ? run : items[i]);
    i += Math.max(1, run.length);
  }
  return joined;
}

const LONGEST_PERIOD = 4;

/** Equal layers from `start` on; or equal pairs, triples or quadruples of layers, as where windows alternate. */
function longestRun(items, start, folding) {
  const stackable = (item) => item instanceof Group && item.isLayer && !folding.isOpen(item);
  let best = [];
  for (let period = 1; period <= LONGEST_PERIOD; period += 1) {
    let end = start;
    while (
      end < items.length &&
      stackable(items[end]) &&
      (end < start + period || items[end].signature === items[end - period].signature)
    ) {
      end += 1;
    }
    const repeats = Math.floor((end - start) / period);
    if (repeats > 1 && repeats * period > best.length) {
      best = items.slice(start, start + repeats * period);
      best.period = period;
    }
  }
  return best;
}
