/** One arena over the launches of a function: each buffer a rectangle from its first to its last launch. */

const CHART = { left: 72, right: 12, top: 14, bottom: 30 };

class MemoryChart {
  /** `watch(launch, buffer)` hears where the pointer or the keys are. */
  constructor(canvas, watch) {
    Object.assign(this, { canvas, watch, launch: null, hovered: null, from: 0, to: 1, buffers: [] });
    new ResizeObserver(() => this.draw()).observe(canvas);
    themeListeners.push(() => this.draw());
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** `unit`: bytes of the arena per unit; `capacity`: units. */
  show(timeline, buffers, unit, capacity) {
    const total = timeline.launches.length;
    if (this.timeline !== timeline) Object.assign(this, { from: 0, to: total, launch: null, hovered: null });
    Object.assign(this, { timeline, buffers, unit, capacity, total });
    this.live = Array.from({ length: total }, () => 0);
    for (const b of buffers) for (let i = b.first; i <= b.last; i += 1) this.live[i] += b.bytes;
    this.draw();
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    const span = Math.max(Math.min(8, this.total), Math.min(this.total, (this.to - this.from) / factor));
    const part = (at - this.from) / (this.to - this.from);
    this.from = Math.max(0, Math.min(this.total - span, at - part * span));
    this.to = this.from + span;
    this.draw();
  }

  get scales() {
    const width = this.canvas.clientWidth - CHART.left - CHART.right;
    const height = this.canvas.clientHeight - CHART.top - CHART.bottom;
    const top = Math.max(this.unit, 1);
    return {
      x: (launch) => CHART.left + ((launch - this.from) / (this.to - this.from)) * width,
      y: (offset) => CHART.top + (1 - offset / top) * height,
      launchAt: (px) => this.from + ((px - CHART.left) / width) * (this.to - this.from),
      offsetAt: (py) => (1 - (py - CHART.top) / height) * top,
    };
  }

  draw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.timeline && this.canvas.clientWidth) this.paint();
    });
  }

  paint() {
    const { context, width, height } = sizedContext(this.canvas);
    const { x, y } = this.scales;
    this.paintGrid(context, width, height);
    context.save();
    context.beginPath();
    context.rect(CHART.left, 0, width - CHART.left - CHART.right, height);
    context.clip();
    let drawn = 0;
    for (const buffer of this.buffers) {
      if (buffer.last + 1 < this.from || buffer.first > this.to) continue;
      drawn += 1;
      const [left, right] = [x(buffer.first), x(buffer.last + 1)];
      const [top, bottom] = [y(buffer.offset + buffer.bytes), y(buffer.offset)];
      const gap = Math.min(1, (right - left) / 6);
      context.fillStyle = opColour(buffer.op);
      context.globalAlpha = this.hovered && this.hovered !== buffer ? 0.4 : 0.85;
      context.fillRect(left, top + 0.5, Math.max(1, right - left - gap), Math.max(1, bottom - top - 1));
      context.globalAlpha = 1;
      if (right - left > 60 && bottom - top > 14) {
        context.fillStyle = theme.get("on-op");
        context.font = FONTS.small;
        context.textBaseline = "middle";
        context.fillText(
          cut(buffer.name.split(":")[1], "small", right - left - 10),
          Math.max(left, CHART.left) + 5,
          (top + bottom) / 2,
        );
      }
    }
    this.paintLive(context, x, y);
    if (this.launch !== null) {
      context.fillStyle = theme.get("cursor");
      context.fillRect(
        x(this.launch),
        CHART.top,
        Math.max(1, x(this.launch + 1) - x(this.launch)),
        height - CHART.top - CHART.bottom,
      );
    }
    context.restore();
    this.canvas.dataset.drawn = drawn;
  }

  paintGrid(context, width, height) {
    const { x, y } = this.scales;
    context.font = FONTS.small;
    context.textBaseline = "middle";
    context.lineWidth = 1;
    context.textAlign = "right";
    for (let i = 0; i <= 4; i += 1) {
      const at = Math.round(y((this.unit * i) / 4)) + 0.5;
      context.strokeStyle = theme.get("line");
      context.beginPath();
      context.moveTo(CHART.left, at);
      context.lineTo(width - CHART.right, at);
      context.stroke();
      context.fillStyle = theme.get("muted");
      context.fillText(bytes((this.unit * i * this.capacity) / 4), CHART.left - 8, at);
    }
    context.textAlign = "center";
    const step = niceStep((this.to - this.from) / 8);
    for (let launch = Math.ceil(this.from / step) * step; launch <= this.to; launch += step) {
      context.fillText(`${launch}`, x(launch), height - CHART.bottom + 12);
    }
    context.textAlign = "left";
  }

  /** The line of what is in use at each launch. */
  paintLive(context, x, y) {
    context.beginPath();
    this.live.forEach((size, i) => {
      context.lineTo(x(i), y(size));
      context.lineTo(x(i + 1), y(size));
    });
    context.strokeStyle = theme.get("ink");
    context.lineWidth = 1.25;
    context.stroke();
  }

  point(event) {
    if (!this.timeline) return;
    const { launchAt, offsetAt } = this.scales;
    const launch = Math.floor(launchAt(event.offsetX));
    const offset = offsetAt(event.offsetY);
    if (launch < 0 || launch >= this.total || event.offsetX < CHART.left) {
      this.leave();
      return;
    }
    const buffer = this.buffers.find(
      (b) => launch >= b.first && launch <= b.last && offset >= b.offset && offset < b.offset + b.bytes,
    );
    this.at(launch, buffer ?? null);
    if (buffer) tooltip.show(event.clientX, event.clientY, ...this.note(buffer));
    else tooltip.hide();
  }

  note(buffer) {
    const origin = this.timeline.launches[buffer.first]?.[1].split(":")[0];
    const lasts = buffer.result ? "kept: a result" : `launches ${buffer.first} to ${buffer.last}`;
    return [
      el("b", { text: buffer.name }),
      el("div", { text: `${bytes(buffer.bytes * this.capacity)} at ${bytes(buffer.offset * this.capacity)}` }),
      el("div", { text: lasts }),
      el("div", { class: "muted", text: origin ? `made for ${origin}` : "" }),
    ];
  }

  at(launch, buffer) {
    Object.assign(this, { launch, hovered: buffer });
    this.watch(launch, buffer);
    this.draw();
  }

  leave() {
    tooltip.hide();
    this.hovered = null;
    this.draw();
  }

  key(event) {
    if (!this.timeline) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (by) this.at(Math.max(0, Math.min(this.total - 1, (this.launch ?? -1) + by)), null);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5, this.launch ?? undefined);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else return;
    event.preventDefault();
  }

  wheel(event) {
    const zooming = event.ctrlKey || event.metaKey;
    const along = event.shiftKey ? event.deltaY : event.deltaX;
    if (!this.timeline || (!zooming && !along)) return;
    event.preventDefault();
    if (zooming) {
      this.zoom(Math.exp(-event.deltaY / 300), this.scales.launchAt(event.offsetX));
      return;
    }
    const span = this.to - this.from;
    this.from = Math.max(0, Math.min(this.total - span, this.from + (along / this.canvas.clientWidth) * span));
    this.to = this.from + span;
    this.draw();
  }
}

/** 1, 2 or 5 times a power of ten, at least `least` and 1. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((step) => step >= least) ?? power);
}
