// C += A B for row-major float32 matrices, in WebAssembly with SIMD where it exists and in plain JavaScript elsewhere.
//
// Rows of A and C come in fours and columns of B and C in eights: the caller pads. The module is assembled here, since
// its inner loop is unrolled over a tile of 4 rows and 8 columns, which one writes better as a loop over instructions.

const ROWS = 4;
const COLUMNS = 8;

const padded = (count, to) => Math.ceil(count / to) * to;

// ------------------------------------------------------------------------------- the assembler: numbers and sections

function leb(value) {
  const bytes = [];
  for (let rest = value; ; rest >>= 7) {
    const last = (rest >> 6) === (rest >> 31); // the sign bit of the last byte repeats
    bytes.push((rest & 0x7f) | (last ? 0 : 0x80));
    if (last) return bytes;
  }
}

function unsigned(value) {
  const bytes = [];
  for (let rest = value; ; rest >>>= 7) {
    bytes.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
    if (rest <= 0x7f) return bytes;
  }
}

const sized = (bytes) => [...unsigned(bytes.length), ...bytes];
const section = (number, bytes) => [number, ...sized(bytes)];
const text = (word) => sized([...word].map((letter) => letter.charCodeAt(0)));

const I32 = 0x7f, V128 = 0x7b;
const get = (local) => [0x20, ...unsigned(local)];
const set = (local) => [0x21, ...unsigned(local)];
const constant = (value) => [0x41, ...leb(value)];
const ADD = [0x6a], SUBTRACT = [0x6b], TIMES = [0x6c], LESS = [0x49];
const raise = (local, by) => [...get(local), ...by, ...ADD, ...set(local)];
const loop = (body, again) => [0x03, 0x40, ...body, ...again, 0x0d, 0x00, 0x0b]; // runs again while `again` isn't 0
const loadVector = (offset) => [0xfd, 0x00, 0x02, ...unsigned(offset)];
const splat = [0xfd, 0x09, 0x02, 0x00];
const storeVector = (offset) => [0xfd, 0x0b, 0x02, ...unsigned(offset)];
const MULTIPLY = [0xfd, 0xe6, 0x01], PLUS = [0xfd, 0xe4, 0x01];

// ------------------------------------------------------------------------------------------------------- the kernel

// The function's parameters (addresses in bytes; sizes in numbers) and its own variables, by their places.
const [A, B, C, M, N, K] = [0, 1, 2, 3, 4, 5];
const [STRIDE_A, STRIDE_C, COLUMN, ROW_A, ROW_C, LEFT, AT_B, STEPS] = [6, 7, 8, 9, 10, 11, 12, 13];
const AT_A = [14, 15, 16, 17];
const B_LOW = 18, B_HIGH = 19, FACTOR = 20;
const SUMS = [...Array(ROWS).keys()].map((row) => [21 + 2 * row, 22 + 2 * row]);
const INTEGERS = 12, VECTORS = 11;

const times4 = (local) => [...get(local), ...constant(4), ...TIMES];

// The addresses of the four rows of C, one after another, from that of the first.
const rowOfC = (row) => [...get(ROW_C), ...get(STRIDE_C), ...constant(row), ...TIMES, ...ADD];

function tileIn() {
  const starts = AT_A.flatMap((at, row) => [
    ...get(row ? AT_A[row - 1] : ROW_A), ...(row ? [...get(STRIDE_A), ...ADD] : []), ...set(at),
  ]);
  const sums = SUMS.flatMap(([low, high], row) => [
    ...rowOfC(row), ...loadVector(0), ...set(low), ...rowOfC(row), ...loadVector(16), ...set(high),
  ]);
  return [...starts, ...get(B), ...get(COLUMN), ...ADD, ...set(AT_B), ...get(K), ...set(STEPS), ...sums];
}

function oneProduct() {
  const add = (sum, column) => [...get(sum), ...get(FACTOR), ...get(column), ...MULTIPLY, ...PLUS, ...set(sum)];
  return [
    ...get(AT_B), ...loadVector(0), ...set(B_LOW), ...get(AT_B), ...loadVector(16), ...set(B_HIGH),
    ...SUMS.flatMap(([low, high], row) => [
      ...get(AT_A[row]), ...splat, ...set(FACTOR), ...add(low, B_LOW), ...add(high, B_HIGH),
    ]),
    ...AT_A.flatMap((at) => raise(at, constant(4))),
    ...raise(AT_B, get(STRIDE_C)),
    ...get(STEPS), ...constant(1), ...SUBTRACT, ...set(STEPS),
  ];
}

function tileOut() {
  return SUMS.flatMap(([low, high], row) => [
    ...rowOfC(row), ...get(low), ...storeVector(0), ...rowOfC(row), ...get(high), ...storeVector(16),
  ]);
}

function kernel() {
  const downRows = [
    ...tileIn(), ...loop(oneProduct(), get(STEPS)), ...tileOut(),
    ...raise(ROW_A, [...get(STRIDE_A), ...constant(ROWS), ...TIMES]),
    ...raise(ROW_C, [...get(STRIDE_C), ...constant(ROWS), ...TIMES]),
    ...get(LEFT), ...constant(ROWS), ...SUBTRACT, ...set(LEFT),
  ];
  const overColumns = [
    ...get(A), ...set(ROW_A), ...get(C), ...get(COLUMN), ...ADD, ...set(ROW_C), ...get(M), ...set(LEFT),
    ...loop(downRows, get(LEFT)), ...raise(COLUMN, constant(4 * COLUMNS)),
  ];
  return [
    ...times4(K), ...set(STRIDE_A), ...times4(N), ...set(STRIDE_C),
    ...loop(overColumns, [...get(COLUMN), ...get(STRIDE_C), ...LESS]), 0x0b,
  ];
}

function assembled() {
  const locals = [2, INTEGERS, I32, VECTORS, V128];
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // "\0asm", version 1
    ...section(1, [1, 0x60, ...sized(Array(6).fill(I32)), 0]), // one type: six integers to nothing
    ...section(2, [1, ...text("env"), ...text("memory"), 0x02, 0x00, 0x01]), // a memory from outside
    ...section(3, [1, 0]), // one function of that type
    ...section(7, [1, ...text("gemm"), 0x00, 0x00]), // under this name
    ...section(10, [1, ...sized([...locals, ...kernel()])]),
  ]);
}

// ------------------------------------------------------------------------------------------------- without WebAssembly

// Four rows of B at a time, since reading and writing C is what takes the time; a last group of fewer steps goes singly.
function plainGemm(a, b, c, m, n, k) {
  for (let i = 0; i < m; i++) {
    let step = 0;
    for (; step + 3 < k; step += 4) {
      const at = i * k + step, from = step * n, to = i * n;
      const f0 = a[at], f1 = a[at + 1], f2 = a[at + 2], f3 = a[at + 3];
      for (let j = 0; j < n; j++) {
        c[to + j] += f0 * b[from + j] + f1 * b[from + n + j] + f2 * b[from + 2 * n + j] + f3 * b[from + 3 * n + j];
      }
    }
    for (; step < k; step++) for (let j = 0; j < n; j++) c[i * n + j] += a[i * k + step] * b[step * n + j];
  }
}

// A memory of fixed size that gives out float32 arrays, and the product over them.
class Heap {
  constructor(bytes, simd = true) {
    const code = assembled();
    this.simd = simd && typeof WebAssembly === "object" && WebAssembly.validate(code);
    this.next = 0;
    if (!this.simd) {
      this.buffer = new ArrayBuffer(bytes);
      this.gemm = plainGemm;
      return;
    }
    const pages = Math.ceil(bytes / 65536);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const { gemm } = new WebAssembly.Instance(new WebAssembly.Module(code), { env: { memory } }).exports;
    this.buffer = memory.buffer;
    this.gemm = (a, b, c, m, n, k) => gemm(a.byteOffset, b.byteOffset, c.byteOffset, m, n, k);
  }

  floats(count) {
    const made = new Float32Array(this.buffer, this.next, count); // a RangeError says that the heap is too small
    this.next += padded(4 * count, 16);
    return made;
  }
}
