/**
 * A layered layout, container by container: operands stand above users. Inside a container every item has a rank, an
 * edge over several ranks passes each at a way point that all readers of its value share, and what comes from or goes
 * to the outside passes a port in the container's rim. All of it is linear in what is visible.
 */

const SPACE = { item: 26, way: 10, rank: 30, port: 16, pad: 16, header: 30 };
const ORDER_SWEEPS = 4;
const PLACE_SWEEPS = 8;

/** Nets of every container under `root`, from the edges between visible boxes. `boxOf`: node index to visible box. */
function connect(graph, boxOf) {
  const known = new Set();
  for (const node of graph.nodes) {
    for (const user of node.users) {
      const from = boxOf[node.index];
      const to = boxOf[user.index];
      const key = from.id * 65536 + to.id;
      if (from !== to && !known.has(key)) {
        known.add(key);
        connectBoxes(from, to);
      }
    }
  }
}

function connectBoxes(source, target) {
  let from = source;
  let to = target;
  while (from.parent !== to.parent) {
    if (from.parent.depth >= to.parent.depth) {
      netOf(from.parent, source, from).targets.add(port(from.parent.exits, source));
      from = from.parent;
    } else {
      netOf(to.parent, source, port(to.parent.entries, source)).targets.add(to);
      to = to.parent;
    }
  }
  netOf(from.parent, source, from).targets.add(to);
}

function port(ports, source) {
  if (!ports.has(source.id)) ports.set(source.id, { port: true, source, order: source.order, w: 0, h: 0 });
  return ports.get(source.id);
}

/** What one container knows of one value: where it comes from here, and where it goes. */
function netOf(container, source, from) {
  if (!container.nets.has(source.id)) container.nets.set(source.id, { source, from, targets: new Set() });
  return container.nets.get(source.id);
}

/** Size and inner places of a container and of all that it holds. */
function layOut(container) {
  for (const item of container.items) if (item.items) layOut(item);
  rankItems(container);
  const bands = bandsOf(container);
  for (let sweep = 0; sweep < ORDER_SWEEPS; sweep += 1) orderBands(bands, sweep % 2 === 0);
  placeBands(bands);
  measure(container, bands);
}

function rankItems(container) {
  const { items, nets, entries, exits } = container;
  items.sort((a, b) => a.order - b.order);
  for (const item of items) Object.assign(item, { rank: entries.size ? 1 : 0, outgoing: [], movable: true });
  for (const net of nets.values()) if (!net.from.port) net.from.outgoing.push(net);
  for (const net of nets.values()) {
    if (net.from.port) for (const target of net.targets) target.movable = false;
  }
  for (const item of items) {
    for (const net of item.outgoing) {
      for (const target of net.targets) {
        if (target.port || target.order < item.order) continue;
        target.rank = Math.max(target.rank, item.rank + 1);
        target.movable &&= item.movable && item.outgoing.length === 1 && net.targets.size === 1;
      }
    }
  }
  // What depends on nothing here stands right above its first reader, not at the top.
  for (const item of [...items].reverse()) {
    const readers = item.outgoing.flatMap((net) => [...net.targets]).filter((t) => !t.port && t.order > item.order);
    if (item.movable && readers.length) item.rank = Math.max(item.rank, Math.min(...readers.map((t) => t.rank)) - 1);
  }
  const last = items.reduce((most, item) => Math.max(most, item.rank), 0);
  for (const entry of entries.values()) entry.rank = 0;
  for (const exit of exits.values()) exit.rank = last + 1;
}

/** Entries of each rank (items, ports, way points), tied by segments from rank to rank. */
function bandsOf(container) {
  const all = [...container.items, ...container.entries.values(), ...container.exits.values()];
  const bands = Array.from({ length: 1 + Math.max(0, ...all.map((e) => e.rank)) }, () => []);
  for (const entry of all) {
    Object.assign(entry, { above: [], below: [] });
    bands[entry.rank].push(entry);
  }
  container.segments = [];
  container.arrivals = new Map();
  for (const net of container.nets.values()) {
    const ahead = [...net.targets].filter((t) => t.rank > net.from.rank).sort((a, b) => a.rank - b.rank);
    let way = { entry: net.from, segment: null };
    for (const target of ahead) {
      while (way.entry.rank < target.rank - 1) {
        const point = { way: true, rank: way.entry.rank + 1, order: net.from.order, w: 4, h: 0, above: [], below: [] };
        bands[point.rank].push(point);
        way = { entry: point, segment: tie(container, net, way, point) };
      }
      container.arrivals.set(arrivalKey(net.source, target), tie(container, net, way, target));
    }
    for (const target of net.targets) {
      if (target.rank > net.from.rank) continue;
      const segment = { net, from: net.from, to: target, previous: null, back: true };
      container.segments.push(segment);
      container.arrivals.set(arrivalKey(net.source, target), segment);
    }
  }
  return bands;
}

const arrivalKey = (source, target) => (target.port ? `${source.id}>` : `${source.id}>${target.id}`);

function tie(container, net, way, to) {
  const segment = { net, from: way.entry, to, previous: way.segment, back: false };
  container.segments.push(segment);
  way.entry.below.push(segment);
  to.above.push(segment);
  return segment;
}

function orderBands(bands, down) {
  const ranked = down ? bands : [...bands].reverse();
  for (const band of bands) {
    if (!band.sorted) band.sort((a, b) => a.order - b.order);
    band.sorted = true;
    band.forEach((entry, i) => (entry.slot = (i + 0.5) / band.length));
  }
  for (const band of ranked) {
    for (const entry of band) {
      const near = down ? entry.above.map((s) => s.from.slot) : entry.below.map((s) => s.to.slot);
      entry.pull = near.length ? near.reduce((a, b) => a + b) / near.length : entry.slot;
    }
    band.sort((a, b) => a.pull - b.pull || a.order - b.order);
    band.forEach((entry, i) => (entry.slot = (i + 0.5) / band.length));
  }
}

/** Where a segment leaves its upper end, right of that end's centre. */
function leavesAt({ net, from }) {
  return from.items ? from.exits.get(net.source.id).x - from.w / 2 : 0;
}

/** Where a segment reaches its lower end, right of that end's centre. */
function arrivesAt({ net, to }) {
  return to.items ? to.entries.get(net.source.id).x - to.w / 2 : 0;
}

const gapOf = (a, b) => (a.w + b.w) / 2 + (a.w > 4 && b.w > 4 ? SPACE.item : SPACE.way);

/** Centres `cx` of all entries: pulled to their neighbours above and below in turn, without overlap. */
function placeBands(bands) {
  for (const band of bands) {
    let x = 0;
    band.forEach((entry, i) => (entry.cx = x += i ? gapOf(band[i - 1], entry) : 0));
    band.forEach((entry) => (entry.cx -= x / 2));
  }
  for (let sweep = 0; sweep < PLACE_SWEEPS; sweep += 1) {
    const down = sweep % 2 === 0;
    for (const band of down ? bands : [...bands].reverse()) {
      const wanted = band.map((entry) => wantedPlace(entry, down, sweep >= PLACE_SWEEPS - 2));
      const weights = band.map(weightOf);
      separated(band, wanted, weights, gapOf).forEach((place, i) => (band[i].cx = place));
    }
  }
}

/** Lines make way for boxes, and boxes for containers: else every layer would be pushed a little further aside. */
function weightOf(entry) {
  const kind = entry.items ? 100 : entry.way || entry.port ? 1 : 2;
  return kind * (1 + entry.above.length + entry.below.length);
}

function wantedPlace(entry, down, both) {
  const places = [];
  // Layers stand straight below each other, whichever sides of them their values pass.
  const layers = entry.items && [...entry.above, ...entry.below].some((s) => s.from.items && s.to.items);
  const pulls = (s) => !layers || (s.from.items && s.to.items);
  const shift = (s) => (layers ? 0 : leavesAt(s) - arrivesAt(s));
  if (down || both) for (const s of entry.above) if (pulls(s)) places.push(s.from.cx + shift(s));
  if (!down || both) for (const s of entry.below) if (pulls(s)) places.push(s.to.cx - shift(s));
  return places.length ? places.reduce((a, b) => a + b) / places.length : entry.cx;
}

/**
 * The container's size, and its entries' places inside it: `x` of ports and way points, `x` and `y` of items' top left
 * corners, and `top` and `bottom` of the rank of each.
 */
function measure(container, bands) {
  const entries = bands.flat();
  const left = entries.length ? Math.min(...entries.map((e) => e.cx - e.w / 2)) : 0;
  const right = entries.length ? Math.max(...entries.map((e) => e.cx + e.w / 2)) : 0;
  const title = container.parent ? container.titleWidth : 0;
  const extra = Math.max(0, title - (right - left)) / 2;
  container.w = right - left + 2 * (SPACE.pad + extra);
  let y = container.parent ? SPACE.header : SPACE.pad;
  for (const band of bands) {
    const height = Math.max(0, ...band.map((e) => e.h));
    for (const entry of band) {
      const centre = entry.cx - left + SPACE.pad + extra;
      Object.assign(entry, { top: y, bottom: y + height });
      if (entry.port || entry.way) entry.x = centre;
      else Object.assign(entry, { x: centre - entry.w / 2, y: y + (height - entry.h) / 2 });
    }
    y += height + (height || band !== bands[0] ? SPACE.rank : SPACE.port);
  }
  const rim = container.exits.size ? 0 : SPACE.pad;
  container.h = y - SPACE.rank + rim;
}
