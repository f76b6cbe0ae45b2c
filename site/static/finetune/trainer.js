// A run: the adapters that the settings ask for, a step after another, and what is measured before and after.

const MEGABYTE = 2 ** 20;

class Trainer {
  // `settings`: rank, alpha, targets (names of LINEARS), rate, seed.
  constructor(weights, simd = true) {
    this.heap = new Heap(128 * MEGABYTE, simd);
    this.model = new Transformer(this.heap, weights);
    this.base = this.heap.next; // adapters begin here, and are thrown away from here
  }

  // Begin anew: fresh adapters in the order of the model's layers, as `add_lora` draws them.
  reset({ rank, alpha, targets, rate, seed = 0 }) {
    const { model, heap } = this, twister = new Twister(seed);
    heap.next = this.base;
    new Uint8Array(heap.buffer, this.base).fill(0);
    model.adapters.clear();
    Object.assign(this, { rate, steps: 0 });
    for (let layer = 0; layer < SHAPE.layers; layer++) {
      for (const name of LINEARS.filter((name) => targets.includes(name))) {
        const adapter = new Adapter(heap, sides(name), rank, alpha);
        adapter.draw(twister);
        model.adapters.set(`${layer}.${name}`, adapter);
      }
    }
  }

  get factors() {
    return [...this.model.adapters.values()].flatMap(({ A, B }) => [A, B]);
  }

  get trained() {
    return [...this.model.adapters.values()].reduce((sum, { rank, fanIn, fanOut }) => sum + rank * (fanIn + fanOut), 0);
  }

  // The loss of a batch, in nats per answer token; its slopes stand in the adapters.
  slopes(lines) {
    const batch = pack(lines);
    this.model.forward(batch);
    const loss = this.model.loss(batch);
    this.model.backward(batch);
    return loss;
  }

  step(lines) {
    const loss = this.slopes(lines);
    if (!Number.isFinite(loss)) throw new Error(`the loss is ${loss} at step ${this.steps}: lower the rate`);
    clip(this.factors);
    this.steps += 1;
    for (const factor of this.factors) adam(factor, this.rate, this.steps);
    for (const adapter of this.model.adapters.values()) adapter.refresh();
    return loss;
  }

  // The share of lines whose whole answer is the likeliest at every token, and the mean loss, in nats per answer token.
  measure(lines) {
    let right = 0, total = 0, tokens = 0;
    for (const part of parts(lines)) {
      const batch = pack(part), logits = this.model.forward(batch);
      for (const { first, answers } of batch.rows) {
        const places = [...Array(answers).keys()].map((i) => first + i);
        right += places.every((place) => likeliest(logits, place) === batch.targets[place]);
      }
      total += this.model.loss(batch) * batch.targets.length;
      tokens += batch.targets.length;
    }
    return { accuracy: right / lines.length, loss: total / tokens };
  }

  // For each token of a line's answer: the right one, its probability, the likeliest one and its probability.
  predict(line) {
    const batch = pack([line]), logits = this.model.forward(batch), n = SHAPE.vocab;
    return batch.targets.map((right, place) => {
      const row = logits.subarray(place * n, place * n + n), guess = likeliest(logits, place);
      const sum = row.reduce((total, value) => total + Math.exp(value - row[guess]), 0);
      return { right, pRight: Math.exp(row[right] - row[guess]) / sum, guess, pGuess: 1 / sum };
    });
  }

  spectra() {
    return Object.fromEntries([...this.model.adapters].map(([name, adapter]) => [name, spectrum(adapter)]));
  }
}

function likeliest(logits, place) {
  const n = SHAPE.vocab, row = logits.subarray(place * n, place * n + n);
  return row.reduce((best, value, id) => (value > row[best] ? id : best), 0);
}

// Lines in groups that fit the model's capacity.
function parts(lines) {
  const found = [[]];
  let tokens = 0;
  for (const line of lines) {
    const length = line[0].length + line[1].length + 2;
    if (tokens + length > CAPACITY) {
      found.push([]);
      tokens = 0;
    }
    found.at(-1).push(line);
    tokens += length;
  }
  return found;
}
