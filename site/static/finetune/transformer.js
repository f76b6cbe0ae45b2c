// The course's decoder (ftmath/model.py), forward and backward by hand over float32 arrays: RMSNorm, rotary positions,
// causal attention, SwiGLU, a head tied to the embedding. All base weights are frozen; gradients go to adapters alone.
//
// The rows of a batch stand one behind another without padding: T tokens, each (width) numbers. The last token of a row
// is left out, since nothing that it predicts is asked for.

class Transformer {
  constructor(heap, weights) {
    Object.assign(this, { heap, adapters: new Map(), turn: angles() });
    const keep = (values) => {
      const made = heap.floats(values.length);
      made.set(values);
      return made;
    };
    const linear = (layer, name) => {
      const room = LINEARS.indexOf(name) < 4 ? "attn" : "mlp", { fanIn, fanOut } = sides(name);
      const matrix = keep(weights[`blocks.${layer}.${room}.${name}.weight`]);
      const bias = weights[`blocks.${layer}.${room}.${name}.bias`];
      return { matrix, turned: transposed(matrix, fanOut, fanIn, heap.floats(matrix.length)), bias, fanIn, fanOut };
    };
    this.embed = keep(weights["embed.weight"]);
    this.head = transposed(this.embed, SHAPE.vocab, SHAPE.width, heap.floats(this.embed.length));
    this.gain = weights["norm.weight"];
    this.blocks = [...Array(SHAPE.layers).keys()].map((layer) => ({
      ...Object.fromEntries(LINEARS.map((name) => [name, linear(layer, name)])),
      attnGain: weights[`blocks.${layer}.attn_norm.weight`],
      mlpGain: weights[`blocks.${layer}.mlp_norm.weight`],
    }));
    this.seen = this.blocks.map(() => this.room());
    this.out = this.endRoom();
    this.slopes = this.backRoom();
  }

  // What a block computes on the way forward, kept for the way back.
  room() {
    const wide = () => this.heap.floats(CAPACITY * SHAPE.width), deep = () => this.heap.floats(CAPACITY * SHAPE.hidden);
    return {
      input: wide(), attnScales: new Float32Array(CAPACITY), attnInput: wide(), q: wide(), k: wide(), v: wide(),
      weights: this.heap.floats(CAPACITY * SHAPE.heads * LONGEST), found: wide(), middle: wide(),
      mlpScales: new Float32Array(CAPACITY), mlpInput: wide(), gate: deep(), up: deep(), inside: deep(),
    };
  }

  endRoom() {
    const wide = () => this.heap.floats(CAPACITY * SHAPE.width);
    return { x: wide(), scales: new Float32Array(CAPACITY), normed: wide(), read: wide(), logits: wide(), dread: wide() };
  }

  backRoom() {
    const wide = () => this.heap.floats(CAPACITY * SHAPE.width), deep = () => this.heap.floats(CAPACITY * SHAPE.hidden);
    return { x: wide(), input: wide(), q: wide(), k: wide(), v: wide(), found: wide(), gate: deep(), up: deep(), inside: deep() };
  }

  // out = x W^T + b, and what an adapter adds.
  linear(layer, name, x, out, count) {
    const { turned, bias, fanIn, fanOut } = this.blocks[layer][name];
    for (let t = 0; t < count; t++) out.set(bias, t * fanOut);
    this.heap.gemm(x, turned, out, padded(count, ROWS), fanOut, fanIn);
    this.adapters.get(`${layer}.${name}`)?.forward(x, out, count);
  }

  // dx += dout W and what an adapter adds; the adapter keeps its own slopes. Without dx nothing below is asked for.
  linearBack(layer, name, x, dout, dx, count) {
    const { matrix, fanIn, fanOut } = this.blocks[layer][name];
    if (dx) this.heap.gemm(dout, matrix, dx, padded(count, ROWS), fanIn, fanOut);
    this.adapters.get(`${layer}.${name}`)?.backward(x, dout, dx, count);
  }

  // Fill the logits (places, vocab) of a pack.
  forward({ ids, rows, places }) {
    const count = ids.length, d = SHAPE.width, { x, scales, normed, read, logits } = this.out;
    if (count > CAPACITY) throw new Error(`${count} tokens don't fit in ${CAPACITY}`);
    ids.forEach((id, t) => x.set(this.embed.subarray(id * d, id * d + d), t * d));
    for (let layer = 0; layer < SHAPE.layers; layer++) this.block(layer, rows, count);
    norm(x, this.gain, normed, scales, count);
    places.forEach((place, i) => read.set(normed.subarray(place * d, place * d + d), i * d));
    logits.fill(0, 0, padded(places.length, ROWS) * SHAPE.vocab);
    this.heap.gemm(read, this.head, logits, padded(places.length, ROWS), SHAPE.vocab, d);
    return logits;
  }

  // x += attention(norm(x)), then x += mlp(norm(x)).
  block(layer, rows, count) {
    const { x } = this.out, seen = this.seen[layer], block = this.blocks[layer], size = count * SHAPE.width;
    seen.input.set(x.subarray(0, size));
    norm(x, block.attnGain, seen.attnInput, seen.attnScales, count);
    for (const name of ["q", "k", "v"]) this.linear(layer, name, seen.attnInput, seen[name], count);
    rotate(seen.q, rows, this.turn, 1);
    rotate(seen.k, rows, this.turn, 1);
    attend(seen, rows);
    this.linear(layer, "o", seen.found, seen.middle, count);
    addTimes(seen.middle, 0, 1, x, 0, size);
    norm(seen.middle, block.mlpGain, seen.mlpInput, seen.mlpScales, count);
    for (const name of ["gate", "up"]) this.linear(layer, name, seen.mlpInput, seen[name], count);
    gated(seen.gate, seen.up, seen.inside, count * SHAPE.hidden);
    this.linear(layer, "down", seen.inside, x, count);
    addTimes(x, 0, 1, seen.middle, 0, size);
  }

  // Turn the logits into their slopes; return the mean negative log-likelihood of the targets, in nats.
  loss({ targets }) {
    const { logits } = this.out, n = SHAPE.vocab, count = targets.length;
    let total = 0;
    targets.forEach((target, i) => {
      const row = logits.subarray(i * n, i * n + n), top = row.reduce((a, b) => Math.max(a, b)), right = row[target];
      let sum = 0;
      for (let j = 0; j < n; j++) sum += row[j] = Math.exp(row[j] - top);
      total += Math.log(sum) - (right - top);
      for (let j = 0; j < n; j++) row[j] /= sum * count;
      row[target] -= 1 / count;
    });
    return total / count;
  }

  // From the logits' slopes back to the adapters.
  backward({ ids, rows, places }) {
    const count = ids.length, d = SHAPE.width, { logits, dread, x, scales } = this.out, dx = this.slopes.x;
    const dnormed = this.slopes.input, reads = padded(places.length, ROWS);
    dread.fill(0, 0, reads * d);
    this.heap.gemm(logits, this.embed, dread, reads, d, SHAPE.vocab);
    dnormed.fill(0, 0, count * d);
    places.forEach((place, i) => dnormed.set(dread.subarray(i * d, i * d + d), place * d));
    dx.fill(0, 0, count * d);
    normBack(x, this.gain, scales, dnormed, dx, count);
    for (let layer = SHAPE.layers - 1; layer >= 0; layer--) {
      this.mlpBack(layer, count);
      this.attnBack(layer, rows, count);
    }
  }

  mlpBack(layer, count) {
    const seen = this.seen[layer], slopes = this.slopes, size = padded(count, ROWS);
    slopes.inside.fill(0, 0, size * SHAPE.hidden);
    this.linearBack(layer, "down", seen.inside, slopes.x, slopes.inside, count);
    gatedBack(seen.gate, seen.up, slopes.inside, slopes.gate, slopes.up, count * SHAPE.hidden);
    slopes.input.fill(0, 0, size * SHAPE.width);
    for (const name of ["gate", "up"]) this.linearBack(layer, name, seen.mlpInput, slopes[name], slopes.input, count);
    normBack(seen.middle, this.blocks[layer].mlpGain, seen.mlpScales, slopes.input, slopes.x, count);
  }

  attnBack(layer, rows, count) {
    const seen = this.seen[layer], slopes = this.slopes, end = padded(count, ROWS) * SHAPE.width;
    for (const name of ["found", "q", "k", "v", "input"]) slopes[name].fill(0, 0, end);
    this.linearBack(layer, "o", seen.found, slopes.x, slopes.found, count);
    attendBack(seen, rows, slopes.found, slopes.q, slopes.k, slopes.v);
    rotate(slopes.q, rows, this.turn, -1);
    rotate(slopes.k, rows, this.turn, -1);
    const below = layer > 0 ? slopes.input : null; // nothing under the first block is trained
    for (const name of ["q", "k", "v"]) this.linearBack(layer, name, seen.attnInput, slopes[name], below, count);
    if (below) normBack(seen.input, this.blocks[layer].attnGain, seen.attnScales, below, slopes.x, count);
  }
}
