// LoRA (ftmath/lora.py) beside a frozen layer, its optimizer (ftmath/training.py), and the spectrum of its update.

// The Mersenne Twister as torch seeds it: the numbers of `torch.empty(n).uniform_(low, high, generator=...)`.
class Twister {
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const before = this.state[i - 1] ^ (this.state[i - 1] >>> 30);
      this.state[i] = Math.imul(before, 1812433253) + i;
    }
    this.at = 624;
  }

  mix() {
    const s = this.state;
    for (let i = 0; i < 624; i++) {
      const y = (s[i] & 0x80000000) | (s[(i + 1) % 624] & 0x7fffffff);
      s[i] = s[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.at = 0;
  }

  next() {
    if (this.at === 624) this.mix();
    let y = this.state[this.at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  uniform(low, high) {
    const share = (this.next() & 0xffffff) * 2 ** -24, [from, to] = [Math.fround(low), Math.fround(high)];
    return Math.fround(share * Math.fround(to - from) + from); // rounded once, as a fused multiply-add is
  }
}

// What is trained of a matrix: its numbers, their slopes, and Adam's two averages.
function trained(heap, count) {
  return { value: heap.floats(count), slope: heap.floats(count), mean: new Float32Array(count), square: new Float32Array(count) };
}

// scale * x A^T B^T: A is (rank, fanIn); B is kept as B^T, (rank, fanOut). The rank is padded with zeros to a multiple
// of eight for the product's sake: those rows of A and columns of B get no slope and stay 0.
class Adapter {
  constructor(heap, { fanIn, fanOut }, rank, alpha) {
    const wide = padded(rank, COLUMNS);
    Object.assign(this, { heap, fanIn, fanOut, rank, wide, scale: alpha / rank });
    this.A = trained(heap, wide * fanIn);
    this.B = trained(heap, wide * fanOut);
    this.turnedA = heap.floats(wide * fanIn);
    this.turnedB = heap.floats(wide * fanOut);
    this.inner = heap.floats(CAPACITY * wide); // scale * x A^T
    this.dinner = heap.floats(CAPACITY * wide);
    this.turned = heap.floats(CAPACITY * wide);
  }

  draw(twister) {
    const bound = 1 / Math.sqrt(this.fanIn);
    for (let i = 0; i < this.rank * this.fanIn; i++) this.A.value[i] = twister.uniform(-bound, bound);
    this.B.value.fill(0);
    this.refresh();
  }

  refresh() {
    transposed(this.A.value, this.wide, this.fanIn, this.turnedA);
    transposed(this.B.value, this.wide, this.fanOut, this.turnedB);
  }

  forward(x, out, count) {
    const rows = padded(count, ROWS);
    this.inner.fill(0, 0, rows * this.wide);
    this.heap.gemm(x, this.turnedA, this.inner, rows, this.wide, this.fanIn);
    for (let i = 0; i < rows * this.wide; i++) this.inner[i] *= this.scale;
    this.heap.gemm(this.inner, this.B.value, out, rows, this.fanOut, this.wide);
  }

  backward(x, dout, dx, count) {
    const rows = padded(count, ROWS);
    this.dinner.fill(0, 0, rows * this.wide);
    this.heap.gemm(dout, this.turnedB, this.dinner, rows, this.wide, this.fanOut);
    for (let i = 0; i < rows * this.wide; i++) this.dinner[i] *= this.scale;
    this.B.slope.fill(0);
    this.heap.gemm(transposed(this.inner, count, this.wide, this.turned), dout, this.B.slope, this.wide, this.fanOut, count);
    this.A.slope.fill(0);
    this.heap.gemm(transposed(this.dinner, count, this.wide, this.turned), x, this.A.slope, this.wide, this.fanIn, count);
    if (dx) this.heap.gemm(this.dinner, this.A.value, dx, rows, this.fanIn, this.wide);
  }
}

// Cut the slopes of all factors together to the length 1; return the length that they had.
function clip(factors) {
  const length = Math.sqrt(factors.reduce((sum, { slope }) => sum + slope.reduce((part, value) => part + value * value, 0), 0));
  const factor = Math.min(1, 1 / (length + 1e-6));
  if (factor < 1) for (const { slope } of factors) for (let i = 0; i < slope.length; i++) slope[i] *= factor;
  return length;
}

// A step of AdamW as torch takes it: betas 0.9 and 0.999, epsilon 1e-8, no decay. `step` counts from 1.
function adam({ value, slope, mean, square }, rate, step) {
  const size = rate / (1 - 0.9 ** step), root = Math.sqrt(1 - 0.999 ** step);
  for (let i = 0; i < value.length; i++) {
    mean[i] += 0.1 * (slope[i] - mean[i]);
    square[i] = 0.999 * square[i] + 0.001 * slope[i] * slope[i];
    value[i] -= (size * mean[i]) / (Math.sqrt(square[i]) / root + 1e-8);
  }
}

// ---------------------------------------------------------------------------------------------------------- spectrum

// The products of all pairs of rows (rank, rank) of a matrix (rank, width), in float64.
function gram(matrix, rank, width) {
  return [...Array(rank).keys()].map((i) => Float64Array.from({ length: rank }, (_, j) => dot(matrix, i * width, matrix, j * width, width)));
}

function cholesky(matrix) {
  const n = matrix.length, low = matrix.map(() => new Float64Array(n));
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const rest = matrix[i][j] - dot(low[i], 0, low[j], 0, j);
      low[i][j] = i === j ? Math.sqrt(Math.max(rest, 0)) : low[j][j] > 0 ? rest / low[j][j] : 0;
    }
  }
  return low;
}

// Turn a symmetric matrix in the plane of p and q so that its entry (p, q) becomes 0.
function turnPlane(matrix, p, q) {
  if (matrix[p][q] === 0) return;
  const middle = (matrix[q][q] - matrix[p][p]) / (2 * matrix[p][q]);
  const tangent = (middle < 0 ? -1 : 1) / (Math.abs(middle) + Math.sqrt(middle * middle + 1));
  const c = 1 / Math.sqrt(tangent * tangent + 1), s = tangent * c;
  for (const row of matrix) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
  const [first, second] = [matrix[p].slice(), matrix[q].slice()];
  matrix[p].forEach((_, i) => {
    matrix[p][i] = c * first[i] - s * second[i];
    matrix[q][i] = s * first[i] + c * second[i];
  });
}

// The eigenvalues of a small symmetric matrix by Jacobi's sweeps, largest first.
function eigenvalues(matrix) {
  const n = matrix.length;
  for (let sweep = 0; sweep < 12; sweep++) for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) turnPlane(matrix, p, q);
  return matrix.map((row, i) => row[i]).sort((a, b) => b - a);
}

// The singular values of scale * B A, largest first, without the (fanOut, fanIn) update: with A A^T = L L^T they are the
// roots of the eigenvalues of L^T (B^T B) L.
function spectrum({ A, B, rank, fanIn, fanOut, scale }) {
  const low = cholesky(gram(A.value, rank, fanIn)), inner = gram(B.value, rank, fanOut);
  const at = (i, j) => {
    let sum = 0;
    for (let a = i; a < rank; a++) for (let b = j; b < rank; b++) sum += low[a][i] * inner[a][b] * low[b][j];
    return sum;
  };
  const whole = low.map((_, i) => Float64Array.from({ length: rank }, (_, j) => at(i, j)));
  return eigenvalues(whole).map((value) => scale * Math.sqrt(Math.max(value, 0)));
}
