/** Pointer and keys of a pane. */

/** Pixels that a click may move. */
const CLICK_SLACK = 4;

class PaneInput {
  constructor(pane) {
    Object.assign(this, { pane, canvas: pane.canvas });
    this.listen();
  }

  listen() {
    const { canvas } = this;
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => this.unhover());
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 32 : 1;
    if (event.ctrlKey || event.metaKey) {
      this.pane.zoom(Math.exp((-event.deltaY * unit) / 300), event.offsetX, event.offsetY);
    } else if (event.shiftKey && !event.deltaX) this.pane.pan(event.deltaY * unit, 0);
    else this.pane.pan(event.deltaX * unit, event.deltaY * unit);
    tooltip.hide();
  }

  /** A drag moves the graph, or the view along the ruler; without moving it is a click. */
  press(event) {
    if (event.button !== 0) return;
    const { canvas, pane } = this;
    const ended = new AbortController();
    const onRuler = event.offsetX > pane.size.w;
    let moved = 0;
    let last = event;
    const move = (e) => {
      moved += Math.abs(e.clientX - last.clientX) + Math.abs(e.clientY - last.clientY);
      if (onRuler) pane.lookAt(e.offsetY / pane.size.h);
      else if (moved > CLICK_SLACK) {
        pane.pan(last.clientX - e.clientX, last.clientY - e.clientY);
        canvas.classList.add("dragged");
      }
      last = e;
    };
    const release = (e) => {
      ended.abort();
      canvas.classList.remove("dragged");
      const clicked = e.type === "pointerup" && moved <= CLICK_SLACK && !onRuler;
      if (clicked) this.click(pane.boxUnder(e.offsetX, e.offsetY));
    };
    canvas.setPointerCapture(event.pointerId);
    for (const [name, act] of Object.entries({ pointermove: move, pointerup: release, pointercancel: release })) {
      canvas.addEventListener(name, act, { signal: ended.signal });
    }
    if (onRuler) move(event);
  }

  click(box) {
    tooltip.hide();
    if (box && box.kind !== "node") this.pane.toggle(box);
    else this.pane.select(box);
  }

  hover(event) {
    if (event.buttons || !this.pane.scene) return;
    const box = this.pane.boxUnder(event.offsetX, event.offsetY);
    this.canvas.style.cursor = box ? "pointer" : "";
    if (box !== this.pane.marks.hover) {
      this.pane.marks.hover = box;
      this.pane.draw();
    }
    if (box && box.kind !== "open") tooltip.show(event.clientX, event.clientY, ...noteFor(box, this.pane.marks));
    else tooltip.hide();
  }

  unhover() {
    tooltip.hide();
    if (!this.pane.marks.hover) return;
    this.pane.marks.hover = null;
    this.pane.draw();
  }

  /** Selection steps through what is visible, in program order. */
  step(by) {
    const boxes = [...this.pane.scene.boxes].sort((a, b) => a.order - b.order);
    const at = boxes.indexOf(this.pane.marks.selected);
    const box = boxes[at < 0 ? 0 : Math.max(0, Math.min(boxes.length - 1, at + by))];
    this.pane.select(box);
    this.pane.centre(box);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = this.pane.size.h * 0.8;
    const actions = {
      ArrowUp: () => this.pane.pan(0, -80),
      ArrowDown: () => this.pane.pan(0, 80),
      ArrowLeft: () => this.pane.pan(-80, 0),
      ArrowRight: () => this.pane.pan(80, 0),
      PageUp: () => this.pane.pan(0, -page),
      PageDown: () => this.pane.pan(0, page),
      Home: () => this.pane.home(),
      "+": () => this.pane.zoom(ZOOM.step),
      "=": () => this.pane.zoom(ZOOM.step),
      "-": () => this.pane.zoom(1 / ZOOM.step),
      0: () => this.pane.fit(),
      j: () => this.step(1),
      k: () => this.step(-1),
      Enter: () => this.pane.toggle(this.pane.marks.selected),
      c: () => this.pane.toggle(this.pane.marks.selected?.parent?.parent ? this.pane.marks.selected.parent : null),
      Escape: () => this.pane.select(null),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  }
}
