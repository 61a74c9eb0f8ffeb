/** Draws a scene as far as a camera sees it; what is too small to read is left out. */

const RULER = 14;
/** Scales and heights on the screen below which text, and then shapes, would not be read. */
const READABLE = 0.38;
const SHAPED = 5;

/** `camera`: scene place of the left top corner, and scale `k`. `marks`: what to point out. Returns boxes drawn. */
function paint(canvas, scene, camera, marks) {
  const { context, width, height } = sizedContext(canvas);
  const view = { x1: camera.x, y1: camera.y, x2: camera.x + width / camera.k, y2: camera.y + height / camera.k };
  context.save();
  context.scale(camera.k, camera.k);
  context.translate(-camera.x, -camera.y);
  for (const box of scene.containers) if (seen(box, view)) paintContainer(context, box, camera.k, marks);
  paintCurves(context, scene, view, camera.k, marks);
  for (const box of scene.containers) if (seen(box, view)) paintLabel(context, box, camera.k);
  let drawn = 0;
  for (const box of scene.drawOrder) {
    if (box.y > view.y2) break;
    if (!seen(box, view)) continue;
    paintBox(context, box, camera.k, marks);
    drawn += 1;
  }
  context.restore();
  paintRuler(context, scene, view, width, height, marks);
  return drawn;
}

const seen = (box, view) => box.x < view.x2 && box.x + box.w > view.x1 && box.y < view.y2 && box.y + box.h > view.y1;

function rounded(context, x, y, w, h, radius) {
  context.beginPath();
  context.roundRect(x, y, w, h, radius);
}

function paintContainer(context, box, k, marks) {
  rounded(context, box.x, box.y, box.w, box.h, 10);
  context.fillStyle = theme.get(box.depth % 2 ? "container-odd" : "container-even");
  context.fill();
  context.lineWidth = 1 / Math.max(k, 0.5);
  context.strokeStyle = marks.hover === box ? theme.get("accent") : theme.get("line-strong");
  context.stroke();
}

function paintLabel(context, box, k) {
  if (k < READABLE) return;
  const text = `− ${box.label}`;
  context.font = FONTS.op;
  context.textBaseline = "middle";
  context.fillStyle = theme.get(box.depth % 2 ? "container-odd" : "container-even");
  context.fillRect(box.x + 8, box.y + 4, textWidth(text, "op") + 8, 20);
  context.fillStyle = theme.get("muted");
  context.fillText(text, box.x + 12, box.y + 15);
}

function paintCurves(context, scene, view, k, marks) {
  const strong = new Set(marks.curves);
  if (SPACE.rank * k < 2 && !strong.size) return;
  const draw = (curves, style, width) => {
    context.strokeStyle = theme.get(style);
    context.lineWidth = width;
    context.beginPath();
    for (const curve of curves) traceCurve(context, curve);
    context.stroke();
  };
  const visible = scene.segments.filter(
    (c) =>
      Math.min(c.y0, c.y2) < view.y2 &&
      Math.max(c.y1, c.y3) > view.y1 &&
      Math.min(c.x1, c.x2) < view.x2 &&
      Math.max(c.x1, c.x2) > view.x1,
  );
  draw(
    visible.filter((c) => !c.back),
    "edge",
    1.2 / Math.max(k, 0.6),
  );
  const back = visible.filter((c) => c.back);
  if (back.length) {
    context.setLineDash([5, 4]);
    draw(back, "edge", 1.2 / Math.max(k, 0.6));
    context.setLineDash([]);
  }
  if (strong.size)
    draw(
      visible.filter((c) => strong.has(c)),
      "accent",
      2.2 / Math.max(k, 0.5),
    );
  if (k >= READABLE) paintArrows(context, visible, strong);
}

function traceCurve(context, { x1, y0, y1, x2, y2, y3 }) {
  const bend = Math.min(40, Math.abs(y2 - y1) / 2);
  context.moveTo(x1, y0);
  if (y1 > y0) context.lineTo(x1, y1);
  if (Math.abs(x1 - x2) < 0.5 && y2 >= y1) context.lineTo(x2, y2);
  else context.bezierCurveTo(x1, y1 + bend, x2, y2 - bend, x2, y2);
  if (y3 > y2) context.lineTo(x2, y3);
}

function paintArrows(context, curves, strong) {
  for (const [style, wanted] of [
    ["edge", false],
    ["accent", true],
  ]) {
    context.fillStyle = theme.get(style);
    context.beginPath();
    for (const curve of curves) {
      const { to } = curve.segment;
      if (to.way || to.port || to.items || strong.has(curve) !== wanted) continue;
      context.moveTo(curve.x2, curve.y3);
      context.lineTo(curve.x2 - 3.5, curve.y3 - 6);
      context.lineTo(curve.x2 + 3.5, curve.y3 - 6);
    }
    context.fill();
  }
}

/** Why a box is pointed out: `added`, `removed`, `changed`, or nothing; of a closed group, what most of it is. */
function statusOf(box, marks) {
  return box.node ? marks.changes.get(box.node.name) : [...tally(box, marks).keys()][0];
}

function tally(box, marks) {
  if (box.tallied !== marks.changes) {
    box.tallied = marks.changes;
    box.tally = new Map();
    for (const kind of ["added", "removed", "changed"]) {
      const number = box.nodes.filter((node) => marks.changes.get(node.name) === kind).length;
      if (number) box.tally.set(kind, number);
    }
  }
  return box.tally;
}

function paintBox(context, box, k, marks) {
  const status = statusOf(box, marks);
  const colour = box.node ? theme.category(categories[box.node.op]) : theme.get("muted");
  if (box.h * k < SHAPED) {
    context.fillStyle = marks.hits?.has(box) ? theme.get("accent") : status ? theme.get(status) : colour;
    context.fillRect(box.x, box.y, box.w, Math.max(box.h, 1.5 / k));
    return;
  }
  if (box.kind === "stack") {
    for (const shift of [8, 4]) paintFrame(context, { ...box, x: box.x + shift, y: box.y + shift }, "line-strong", 1);
  }
  const selected = marks.selected === box;
  const hit = marks.hits?.has(box);
  if (hit || selected) {
    rounded(context, box.x - 4, box.y - 4, box.w + 8, box.h + 8, 10);
    context.fillStyle = theme.get(selected ? "selection" : "hit");
    context.fill();
  }
  paintFrame(
    context,
    box,
    selected || marks.hover === box ? "accent" : (status ?? "line-strong"),
    status || selected ? 2 : 1,
    status,
  );
  if (box.node) {
    context.fillStyle = colour;
    rounded(context, box.x, box.y, 5, box.h, [7, 0, 0, 7]);
    context.fill();
  }
  if (k < READABLE) {
    if (box.node) {
      context.globalAlpha = 0.35;
      rounded(context, box.x + 5, box.y, box.w - 5, box.h, [0, 7, 7, 0]);
      context.fill();
      context.globalAlpha = 1;
    }
    paintName(context, box, k);
    return;
  }
  paintText(context, box, marks);
}

function paintFrame(context, box, stroke, width, status) {
  rounded(context, box.x, box.y, box.w, box.h, 7);
  context.fillStyle = theme.get("panel");
  context.fill();
  if (status) {
    context.fillStyle = theme.get(`${status}-soft`);
    context.fill();
  }
  context.strokeStyle = theme.get(stroke);
  context.lineWidth = width;
  context.stroke();
}

/** The op alone, as large as it needs to be, where there is room for it. */
function paintName(context, box, k) {
  const size = 8.5 / k;
  const width = (textWidth(box.title, "op") * size) / 13;
  if (width > box.w - 4 / k || size > box.h) return;
  context.font = FONTS.op.replace("13px", `${size}px`);
  context.textBaseline = "middle";
  context.fillStyle = theme.get("ink");
  context.fillText(box.title, box.x + (box.w - width) / 2, box.y + box.h / 2);
}

function paintText(context, box, marks) {
  const x = box.x + NODE.side + (box.node ? 3 : 2);
  context.textBaseline = "middle";
  context.font = FONTS.op;
  context.fillStyle = theme.get("ink");
  context.fillText(box.node ? box.title : `+ ${box.title}`, x, box.y + (box.detail ? 15 : 14));
  context.font = FONTS.small;
  context.fillStyle = theme.get("muted");
  if (box.detail) context.fillText(box.detail, x, box.y + 31);
  let y = box.y + (box.detail ? NODE.head : 28) + 5;
  for (const chip of box.chips) {
    paintChip(context, chip, x, y);
    y += NODE.chip;
  }
  if (!box.node) paintTally(context, box, marks);
}

function paintChip(context, { kind, text }, x, y) {
  context.font = FONTS.chip;
  context.fillStyle = theme.get(kind === "weight" ? "weight" : "input");
  context.beginPath();
  if (kind === "weight") context.rect(x + 0.5, y - 3, 6, 6);
  else context.arc(x + 3.5, y, 3, 0, 7);
  if (kind !== "more") context.fill();
  context.fillStyle = theme.get("muted");
  context.fillText(text, x + 12, y);
}

/** On a closed group: how many of its values a pass made or took away. */
function paintTally(context, box, marks) {
  let x = box.x + box.w - 8;
  context.font = FONTS.chip;
  for (const [kind, number] of tally(box, marks)) {
    const text = `${{ added: "+", removed: "−", changed: "~" }[kind]}${number}`;
    const width = textWidth(text, "chip") + 10;
    x -= width + 2;
    rounded(context, x, box.y - 12, width, 16, 8);
    context.fillStyle = theme.get(kind);
    context.fill();
    context.fillStyle = theme.get("on-status");
    context.fillText(text, x + 5, box.y - 3.5);
  }
}

/** The strip at the right: where in the whole graph the view, the changes and the search's finds are. */
function paintRuler(context, scene, view, width, height, marks) {
  const scale = height / Math.max(scene.h, 1);
  context.fillStyle = theme.get("ruler");
  context.fillRect(width - RULER, 0, RULER, height);
  for (const box of scene.boxes) {
    const status = marks.hits?.has(box) ? "accent" : statusOf(box, marks);
    if (!status) continue;
    context.fillStyle = theme.get(status);
    context.fillRect(width - RULER + 3, box.y * scale, RULER - 6, Math.max(2, box.h * scale));
  }
  context.strokeStyle = theme.get("muted");
  context.lineWidth = 1;
  const top = Math.max(0, view.y1 * scale);
  context.strokeRect(
    width - RULER + 0.5,
    top + 0.5,
    RULER - 1,
    Math.max(6, Math.min(height, view.y2 * scale) - top - 1),
  );
}
