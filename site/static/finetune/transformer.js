// The course's decoder (ftmath/model.py), forward and backward by hand over float32 arrays: RMSNorm, rotary positions,
// causal attention, SwiGLU, a head tied to the embedding. All base weights are frozen; gradients go to adapters alone.
//
// The rows of a batch stand one behind another without padding: T tokens, each (width) numbers. The last token of a row
// is left out, since nothing that it predicts is asked for.

const SHAPE = { vocab: 128, width: 128, layers: 4, heads: 4, head: 32, hidden: 352, base: 10000, epsilon: 1e-5 };
const LINEARS = ["q", "k", "v", "o", "gate", "up", "down"];
const CAPACITY = 768; // tokens at once
const LONGEST = 64; // tokens in a row

const sides = (name) => ({
  fanIn: name === "down" ? SHAPE.hidden : SHAPE.width,
  fanOut: name === "gate" || name === "up" ? SHAPE.hidden : SHAPE.width,
});

// --------------------------------------------------------------------------------------------------- text and weights

const BOS = 1, SEP = 2, EOS = 3;
const codes = (text) => [...text].map((letter) => letter.charCodeAt(0));

// Lines [prompt, answer] as one pack: inputs, where each row begins, and the places whose next token is an answer's.
function pack(lines) {
  const ids = [], rows = [], places = [], targets = [];
  for (const [prompt, answer] of lines) {
    const before = [BOS, ...codes(prompt), SEP], line = [...before, ...codes(answer), EOS];
    const start = ids.length, length = line.length - 1;
    rows.push({ start, length, first: places.length, answers: line.length - before.length });
    for (let at = before.length; at < line.length; at++) {
      places.push(start + at - 1);
      targets.push(line[at]);
    }
    ids.push(...line.slice(0, length));
  }
  return { ids, rows, places, targets };
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// A safetensors file in float16: eight bytes of a length, a header in JSON, the numbers.
function readWeights(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  const found = {};
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (dtype !== "F16") throw new Error(`${name} is ${dtype}, not F16`);
    found[name] = Float32Array.from({ length: (to - from) / 2 }, (_, i) => half(view.getUint16(start + from + 2 * i, true)));
  }
  return found;
}

function transposed(from, rows, columns, to) {
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
  return to;
}

// ----------------------------------------------------------------------------------------------- pieces and their slopes

// out = gain * x / rms(x), a token at a time; `scales` keeps 1 / rms for the way back.
function norm(x, gain, out, scales, count) {
  const d = SHAPE.width;
  for (let t = 0; t < count; t++) {
    let sum = 0;
    for (let i = t * d; i < t * d + d; i++) sum += x[i] * x[i];
    const scale = 1 / Math.sqrt(sum / d + SHAPE.epsilon);
    scales[t] = scale;
    for (let i = 0; i < d; i++) out[t * d + i] = gain[i] * (x[t * d + i] * scale);
  }
}

// dx += the slope of `norm` at x times dout.
function normBack(x, gain, scales, dout, dx, count) {
  const d = SHAPE.width;
  for (let t = 0; t < count; t++) {
    const from = t * d, scale = scales[t];
    let dot = 0;
    for (let i = 0; i < d; i++) dot += gain[i] * dout[from + i] * x[from + i];
    const pull = (dot * scale * scale * scale) / d;
    for (let i = 0; i < d; i++) dx[from + i] += scale * gain[i] * dout[from + i] - pull * x[from + i];
  }
}

// Cosines and sines of all positions: (LONGEST, head / 2).
function angles() {
  const pairs = SHAPE.head / 2;
  const at = (turn) => Float32Array.from({ length: LONGEST * pairs }, (_, i) => {
    const rate = Math.fround(SHAPE.base ** (-(i % pairs) / pairs));
    return turn(Math.fround(Math.floor(i / pairs) * rate));
  });
  return { cos: at(Math.cos), sin: at(Math.sin) };
}

// Turn each head's pairs (i, i + head / 2) by the token's angles, in place; `sign` -1 turns back.
function rotate(x, rows, { cos, sin }, sign) {
  const { heads, head, width } = SHAPE, pairs = head / 2;
  for (const { start, length } of rows) {
    for (let t = 0; t < length; t++) {
      for (let h = 0; h < heads; h++) {
        const from = (start + t) * width + h * head;
        for (let i = 0; i < pairs; i++) {
          const c = cos[t * pairs + i], s = sign * sin[t * pairs + i], first = x[from + i], second = x[from + pairs + i];
          x[from + i] = first * c - second * s;
          x[from + pairs + i] = second * c + first * s;
        }
      }
    }
  }
}

function dot(a, at, b, bt, count) {
  let sum = 0;
  for (let i = 0; i < count; i++) sum += a[at + i] * b[bt + i];
  return sum;
}

function addTimes(to, at, factor, from, bt, count) {
  for (let i = 0; i < count; i++) to[at + i] += factor * from[bt + i];
}

// Call `visit(q's and k's offset of the row and head, the offset of its weights, length)` for every row and head.
function eachHead(rows, visit) {
  let weights = 0;
  for (const { start, length } of rows) {
    for (let h = 0; h < SHAPE.heads; h++) {
      visit(start * SHAPE.width + h * SHAPE.head, weights, length);
      weights += length * length;
    }
  }
}

// Causal attention: `weights` keeps each head's (length, length) softmax.
function attend({ q, k, v, weights, found }, rows) {
  const { width, head } = SHAPE, scale = 1 / Math.sqrt(head);
  eachHead(rows, (from, kept, length) => {
    for (let i = 0; i < length; i++) {
      const row = kept + i * length, query = from + i * width;
      let top = -Infinity, sum = 0;
      for (let j = 0; j <= i; j++) top = Math.max(top, (weights[row + j] = scale * dot(q, query, k, from + j * width, head)));
      for (let j = 0; j <= i; j++) sum += weights[row + j] = Math.exp(weights[row + j] - top);
      found.fill(0, query, query + head);
      for (let j = 0; j <= i; j++) addTimes(found, query, (weights[row + j] /= sum), v, from + j * width, head);
    }
  });
}

// From the slope of the output to those of q, k and v, which start at 0.
function attendBack({ q, k, v, weights }, rows, dfound, dq, dk, dv) {
  const { width, head } = SHAPE, scale = 1 / Math.sqrt(head), dweights = new Float32Array(LONGEST);
  eachHead(rows, (from, kept, length) => {
    for (let i = 0; i < length; i++) {
      const row = kept + i * length, query = from + i * width;
      let mean = 0;
      for (let j = 0; j <= i; j++) {
        dweights[j] = dot(dfound, query, v, from + j * width, head);
        mean += weights[row + j] * dweights[j];
        addTimes(dv, from + j * width, weights[row + j], dfound, query, head);
      }
      for (let j = 0; j <= i; j++) {
        const slope = scale * weights[row + j] * (dweights[j] - mean);
        addTimes(dq, query, slope, k, from + j * width, head);
        addTimes(dk, from + j * width, slope, q, query, head);
      }
    }
  });
}

// out = silu(gate) * up.
function gated(gate, up, out, count) {
  for (let i = 0; i < count; i++) out[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
}

// Put the slopes of gate and up into dgate and dup.
function gatedBack(gate, up, dout, dgate, dup, count) {
  for (let i = 0; i < count; i++) {
    const open = 1 / (1 + Math.exp(-gate[i]));
    dup[i] = dout[i] * gate[i] * open;
    dgate[i] = dout[i] * up[i] * open * (1 + gate[i] * (1 - open));
  }
}

// --------------------------------------------------------------------------------------------------------- the model

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
