/** From inner places to a scene in one coordinate system: boxes, containers, and edges as curves. */

const textMeter = document.createElement("canvas").getContext("2d");
const FONTS = {
  op: "600 13px system-ui, sans-serif",
  small: "11px ui-monospace, 'DejaVu Sans Mono', monospace",
  chip: "10.5px ui-monospace, 'DejaVu Sans Mono', monospace",
};
const widths = new Map();

function textWidth(text, font) {
  const key = `${font}|${text}`;
  if (!widths.has(key)) {
    textMeter.font = FONTS[font];
    widths.set(key, textMeter.measureText(text).width);
  }
  return widths.get(key);
}

/** The text, cut to a width with an ellipsis. */
function cut(text, font, width) {
  if (textWidth(text, font) <= width) return text;
  const keep = Math.max(1, Math.floor((text.length * width) / textWidth(text, font)) - 1);
  return `${text.slice(0, keep)}…`;
}

const NODE = { least: 112, most: 250, side: 10, head: 42, chip: 17, chips: 4 };

/** The scene of a graph: what is visible under a folding, placed. */
function sceneOf(graph, tree, folding) {
  const boxOf = [];
  const scene = { boxes: [], containers: [], segments: [], boxOf, w: 0, h: 0 };
  let ids = 0;
  const make = (properties, parent) => ({
    id: (ids += 1),
    parent,
    depth: parent ? parent.depth + 1 : 0,
    ...properties,
  });

  function container(group, parent) {
    const nets = { nets: new Map(), entries: new Map(), exits: new Map() };
    const box = make({ kind: "open", group, label: group.label, order: group.first, items: [], ...nets }, parent);
    box.titleWidth = textWidth(`− ${group.label}`, "op") + 30;
    if (parent) scene.containers.push(box);
    for (const item of stackedItems(group, folding)) box.items.push(boxFor(item, box));
    return box;
  }

  function boxFor(item, parent) {
    if (Array.isArray(item)) return closed(item, parent);
    if (!(item instanceof Group)) return leaf(item, parent);
    return folding.isOpen(item) ? container(item, parent) : closed([item], parent);
  }

  function leaf(node, parent) {
    const box = make({ kind: "node", node, nodes: [node], order: node.index }, parent);
    Object.assign(box, nodeFace(node, parent.group));
    boxOf[node.index] = box;
    scene.boxes.push(box);
    return box;
  }

  function closed(groups, parent) {
    const nodes = groups.flatMap(membersOf);
    const box = make({ kind: groups.length > 1 ? "stack" : "group", groups, nodes, order: groups[0].first }, parent);
    Object.assign(box, groupFace(groups));
    for (const node of nodes) boxOf[node.index] = box;
    scene.boxes.push(box);
    return box;
  }

  const root = container(tree.root, null);
  connect(graph, boxOf);
  layOut(root);
  settle(root, 0, 0, scene);
  return Object.assign(scene, { root, w: root.w, h: root.h, drawOrder: [...scene.boxes].sort((a, b) => a.y - b.y) });
}

const membersOf = (group) => group.items.flatMap((item) => (item instanceof Group ? membersOf(item) : [item]));

/** Lines of a node: op, type, and chips for its weights and inputs. */
function nodeFace(node, group) {
  const inner = NODE.most - 2 * NODE.side;
  const names = [...node.weights.map((n) => ["weight", n]), ...node.inputs.map((n) => ["input", n])];
  const chips = names
    .slice(0, NODE.chips)
    .map(([kind, name]) => ({ kind, text: cut(shortName(name, group), "chip", inner - 16) }));
  if (names.length > NODE.chips)
    chips[NODE.chips - 1] = { kind: "more", text: `${names.length - NODE.chips + 1} more` };
  const title = cut(node.op, "op", inner);
  const type = cut(node.type, "small", inner);
  const widest = Math.max(
    textWidth(title, "op"),
    textWidth(type, "small"),
    ...chips.map((c) => textWidth(c.text, "chip") + 16),
  );
  return {
    title,
    detail: type,
    chips,
    w: Math.max(NODE.least, Math.ceil(widest) + 2 * NODE.side),
    h: (type ? NODE.head : 28) + (chips.length ? chips.length * NODE.chip + 5 : 0),
  };
}

/** A weight's name as its module sees it. */
function shortName(name, group) {
  for (let g = group; g?.key; g = g.parent) if (name.startsWith(`${g.key}.`)) return name.slice(g.key.length + 1);
  return name.replace(/^.*?\.\d+\./, "").replace(/^[^.]+\.(?=.*\.)/, "");
}

function groupFace(groups) {
  const [first] = groups;
  const last = groups.at(-1);
  const title = groups.length > 1 ? `${first.key} … ${last.key.split(".").at(-1)}` : first.label;
  const period = groups.period ?? 1;
  const each = plural(
    groups.slice(0, period).reduce((sum, g) => sum + g.size, 0),
    "op",
  );
  const repeats = groups.length / period;
  const detail =
    repeats === 1
      ? each
      : period === 1
        ? `×${repeats} identical, ${each} each`
        : `${repeats} × (${period} layers, ${each})`;
  const width = Math.max(textWidth(title, "op") + 22, textWidth(detail, "small"));
  return { title, detail, chips: [], w: Math.max(150, Math.ceil(width) + 2 * NODE.side + 8), h: 50 };
}

/** Add the container's own place to all that it holds, and make curves of its segments. */
function settle(container, x, y, scene) {
  Object.assign(container, { x, y });
  const rim = { top: y, bottom: y + container.h };
  for (const item of container.items) {
    if (item.items) settle(item, x + item.x, y + item.y, scene);
    else Object.assign(item, { x: x + item.x, y: y + item.y });
  }
  for (const segment of container.segments) {
    const { from, to, net } = segment;
    // Straight down from y0 to y1, past what else stands in the rank; a bend to y2; straight down to y3.
    const curve = { segment, source: net.source, back: segment.back, y1: y + from.bottom, y2: y + to.top };
    if (from.port) Object.assign(curve, { x1: x + from.x, y0: rim.top });
    else if (from.way) Object.assign(curve, { x1: x + from.x, y0: y + from.bottom });
    else Object.assign(curve, { x1: from.x + from.w / 2 + leavesAt(segment), y0: from.y + from.h });
    if (to.port) Object.assign(curve, { x2: x + to.x, y3: rim.bottom });
    else if (to.way) Object.assign(curve, { x2: x + to.x, y3: y + to.bottom });
    else Object.assign(curve, { x2: to.x + to.w / 2 + arrivesAt(segment), y3: to.y });
    segment.curve = curve;
    scene.segments.push(curve);
  }
}

/** The curves that lead to `box` from each box it reads. */
function curvesInto(box) {
  const found = [];
  for (const arrival of sourcesInto(box)) trace(box, box.parent, arrival, found);
  return found;
}

function sourcesInto(box) {
  return [...box.parent.nets.values()].filter((net) => net.targets.has(box)).map((net) => net.source);
}

/** Follow one value backwards from `target` in `container` to where it is made. */
function trace(target, container, source, found) {
  let segment = container.arrivals.get(arrivalKey(source, target));
  while (segment) {
    found.push(segment.curve);
    if (segment.previous) {
      segment = segment.previous;
    } else if (segment.from.port) {
      target = container;
      container = container.parent;
      segment = container.arrivals.get(arrivalKey(source, target));
    } else if (segment.from.items) {
      container = segment.from;
      target = container.exits.get(source.id);
      segment = container.arrivals.get(arrivalKey(source, target));
    } else {
      segment = null;
    }
  }
}
