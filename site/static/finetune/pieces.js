// The sizes of the course's decoder, its text and its weights, and the pieces of a block with their slopes.

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
