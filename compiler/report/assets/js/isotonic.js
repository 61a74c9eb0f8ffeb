/**
 * Places closest to the wanted ones (least squares with weights) that keep an order and distances: pool adjacent
 * violators. `entries` in order; `wanted[i]` and `weights[i]` of each; `gap(a, b)` between the centres of neighbours.
 */
function separated(entries, wanted, weights, gap) {
  const shifts = [0];
  for (let i = 1; i < entries.length; i += 1) shifts.push(shifts[i - 1] + gap(entries[i - 1], entries[i]));
  const blocks = [];
  for (let i = 0; i < entries.length; i += 1) {
    let block = { sum: (wanted[i] - shifts[i]) * weights[i], weight: weights[i], length: 1 };
    while (blocks.length && blocks.at(-1).sum / blocks.at(-1).weight >= block.sum / block.weight) {
      const last = blocks.pop();
      block = { sum: last.sum + block.sum, weight: last.weight + block.weight, length: last.length + block.length };
    }
    blocks.push(block);
  }
  const places = [];
  for (const block of blocks) {
    for (let i = 0; i < block.length; i += 1) places.push(block.sum / block.weight + shifts[places.length]);
  }
  return places;
}
