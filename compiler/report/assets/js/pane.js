/** One graph on a canvas: what it shows, and from where. */

const ZOOM = { least: 0.005, most: 2.5, step: 1.25 };
const MARGIN = 40;

class Pane {
  /** `folding` is shared between panes; `events`: `changed()` after folding, `selected(pane, node)`. */
  constructor(canvas, folding, events) {
    Object.assign(this, { canvas, folding, events });
    this.camera = { x: 0, y: 0, k: 1 };
    this.marks = { changes: new Map(), hits: null, selected: null, hover: null, curves: [] };
    this.scene = null;
    this.frame = 0;
    this.flight = 0;
    this.placed = false;
    this.width = 0;
    new ResizeObserver(() => this.resized()).observe(canvas);
    themeListeners.push(() => this.draw());
    new PaneInput(this);
  }

  /** Show a graph; what is selected stays selected where it is still there. */
  show(graph, changed) {
    this.graph = graph;
    this.tree = foldTree(graph);
    this.marks.changes = changed;
    this.found = [];
    this.rebuild();
  }

  /** Place everything anew after folding changed; what was selected is now in the box of its first node. */
  rebuild() {
    const node = this.graph.byName.get(this.marks.selected?.nodes[0].name);
    this.scene = sceneOf(this.graph, this.tree, this.folding);
    this.mark(node ? this.scene.boxOf[node.index] : null);
    this.markHits();
    if (!this.placed) this.home();
    this.clamp();
    this.draw();
  }

  mark(box) {
    const outgoing = box ? this.scene.segments.filter((curve) => curve.source === box) : [];
    Object.assign(this.marks, { selected: box, hover: null, curves: box ? [...curvesInto(box), ...outgoing] : [] });
    this.canvas.dataset.selected = box ? (box.node?.name ?? box.title) : "";
  }

  select(box) {
    this.mark(box);
    this.events.selected(this, box?.node ?? null);
    this.draw();
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (!this.scene || !this.canvas.clientWidth) return;
      this.canvas.dataset.drawn = paint(this.canvas, this.scene, this.camera, this.marks);
      this.canvas.dataset.boxes = this.scene.boxes.length;
    });
  }

  // --- the camera

  get size() {
    return { w: this.canvas.clientWidth - RULER, h: this.canvas.clientHeight };
  }

  /** What was in the middle stays there. */
  resized() {
    const { w } = this.size;
    if (!this.placed && this.scene) this.home();
    else if (this.width > 0 && w > 0) this.camera.x -= (w - this.width) / 2 / this.camera.k;
    this.width = w > 0 ? w : this.width;
    this.draw();
  }

  /** The graph's width in view, from the top. */
  home() {
    const { w } = this.size;
    if (w <= 0 || !this.scene) return;
    this.halt();
    this.placed = true;
    this.width = w;
    const k = Math.max(0.3, Math.min(1, w / (this.scene.w + MARGIN)));
    this.camera = { k, x: this.scene.w / 2 - w / 2 / k, y: -12 / k };
    this.draw();
  }

  /** All of it in view. */
  fit() {
    const { w, h } = this.size;
    const k = Math.max(ZOOM.least, Math.min(1, w / (this.scene.w + MARGIN), h / (this.scene.h + MARGIN)));
    this.fly({ k, x: this.scene.w / 2 - w / 2 / k, y: this.scene.h / 2 - h / 2 / k });
  }

  zoom(factor, px = this.size.w / 2, py = this.size.h / 2) {
    this.halt();
    const { x, y, k } = this.camera;
    const to = Math.max(ZOOM.least, Math.min(ZOOM.most, k * factor));
    this.camera = { k: to, x: x + px / k - px / to, y: y + py / k - py / to };
    this.clamp();
    this.draw();
  }

  pan(dx, dy) {
    this.halt();
    this.camera.x += dx / this.camera.k;
    this.camera.y += dy / this.camera.k;
    this.clamp();
    this.draw();
  }

  /** Some of the graph stays in view. */
  clamp() {
    const { w, h } = this.size;
    if (!this.scene || w <= 0) return;
    const keep = 60 / this.camera.k;
    const within = (value, least, most) => Math.max(least, Math.min(most, value));
    this.camera.x = within(this.camera.x, keep - w / this.camera.k, this.scene.w - keep);
    this.camera.y = within(this.camera.y, keep - h / this.camera.k, this.scene.h - keep);
  }

  /** End a flight under way; returns the number of the next. */
  halt() {
    this.flight += 1;
    return this.flight;
  }

  /** The middle of the view at this part of the graph's height. */
  lookAt(part) {
    this.halt();
    this.camera.y = part * this.scene.h - this.size.h / 2 / this.camera.k;
    this.clamp();
    this.draw();
  }

  fly(to) {
    const from = { ...this.camera };
    const began = performance.now();
    const lasts = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 220;
    const flight = this.halt();
    const step = () => {
      if (flight !== this.flight) return;
      const t = lasts ? Math.min(1, (performance.now() - began) / lasts) : 1;
      const ease = 1 - (1 - t) ** 3;
      for (const key of ["x", "y", "k"]) this.camera[key] = from[key] + (to[key] - from[key]) * ease;
      this.draw();
      if (t < 1) requestAnimationFrame(step);
    };
    step();
  }

  centre(box) {
    const { w, h } = this.size;
    const k = Math.max(this.camera.k, 0.75);
    this.placed = true;
    this.fly({ k, x: box.x + box.w / 2 - w / 2 / k, y: box.y + box.h / 2 - h / 2 / k });
  }

  // --- going to nodes

  /** Open what hides the node, select it and bring it to the middle. */
  goTo(node) {
    if (this.scene.boxOf[node.index].node !== node) {
      this.folding.reveal(this.tree, node);
      this.events.changed();
    }
    const box = this.scene.boxOf[node.index];
    this.select(box);
    this.centre(box);
  }

  /** The value of that name, or the first of a module, a changed one if there is any; else of the module around it. */
  nodeAt(place) {
    const changed = (node) => this.marks.changes.has(node.name);
    if (this.graph.byName.has(place)) return this.graph.byName.get(place);
    for (let module = place; module; module = module.slice(0, Math.max(0, module.lastIndexOf(".")))) {
      const members = this.graph.nodes.filter((n) => n.where === module || n.where.startsWith(`${module}.`));
      if (members.length) return members.find(changed) ?? members[0];
    }
    return null;
  }

  get firstChange() {
    return this.graph.nodes.find((node) => this.marks.changes.has(node.name)) ?? null;
  }

  /** Nodes with all the words in op, name or module; returns how many. */
  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (node) => {
      const all = `${node.op} %${node.name} ${node.where} ${node.weights.join(" ")}`.toLowerCase();
      return words.every((word) => all.includes(word));
    };
    this.found = words.length ? this.graph.nodes.filter(fits) : [];
    this.markHits();
    this.draw();
    return this.found.length;
  }

  markHits() {
    this.marks.hits = this.found?.length ? new Set(this.found.map((node) => this.scene.boxOf[node.index])) : null;
  }

  toggle(box) {
    if (!box || box.kind === "node") return;
    const before = { x: box.x, y: box.y };
    const [group] = box.groups ?? [box.group];
    if (box.kind === "open") this.folding.close(group);
    else this.folding.open(group);
    this.events.changed();
    const now = [...this.scene.containers, ...this.scene.boxes].find(
      (b) => b.group === group || b.groups?.[0] === group,
    );
    if (!now) return;
    // The box stays under the pointer; a wide one is brought into view.
    const { w } = this.size;
    this.camera.y += now.y - before.y;
    this.camera.x =
      now.w * this.camera.k > w ? now.x + now.w / 2 - w / 2 / this.camera.k : this.camera.x + now.x - before.x;
    this.clamp();
    this.draw();
  }

  boxUnder(px, py) {
    if (px > this.size.w) return null;
    const x = this.camera.x + px / this.camera.k;
    const y = this.camera.y + py / this.camera.k;
    const holds = (b, height = b.h) => x >= b.x && x <= b.x + b.w && y >= b.y && y <= b.y + height;
    return (
      this.scene.boxes.find((b) => holds(b)) ?? this.scene.containers.findLast((b) => holds(b, SPACE.header)) ?? null
    );
  }
}
