// Runs a network on recordings: its answers step by step, its spikes, and their cost.
import { load } from "../c/scnn.mjs";

export class Network {
  // `about` is the description of a network by scnn.deploy.live, including its WebAssembly in base64.
  static async from(about) {
    return new Network(about, await load(bytes(about.wasm)));
  }

  constructor(about, recogniser) {
    this.about = about;
    this.recogniser = recogniser;
    this.steps = about.steps;
    this.threshold = 1;
  }

  get rate() { return this.about.rate; }
  get classes() { return this.about.classes; }

  tune(steps, threshold) {
    this.recogniser.tune(steps, threshold);
    [this.steps, this.threshold] = [steps, threshold];
  }

  // For 16-bit samples: the answer (null for silence), whether it is sure, its confidence, and for each step the scores
  // of all classes and their shares (running mean over steps of the softmax of the membranes).
  recognise(samples) {
    const scores = [];
    let answer;
    for (let steps = 1; steps <= this.steps; steps++) {
      this.recogniser.tune(steps, this.threshold);
      const found = this.recogniser.recognise(samples);
      answer = found.answer;
      if (answer === null) return { answer, sure: false, confidence: 0, scores: [], shares: [] };
      scores.push(found.scores);
    }
    const sum = this.classes.map(() => 0);
    const shares = scores.map((now, t) => {
      const membranes = now.map((score, k) => (score - (t ? scores[t - 1][k] : 0)) * this.about.unit);
      softmax(membranes).forEach((share, k) => { sum[k] += share; });
      return sum.map((total) => total / (t + 1));
    });
    const confidence = shares.at(-1)[this.classes.indexOf(answer)];
    const sure = confidence >= this.about.refuse;
    return { answer, sure, confidence, scores, shares, ...this.recogniser.traced() };
  }

  // Operations of each layer for the last recording, given by its `image` and `hidden` activity: multiply-accumulates in
  // the first layer, additions in the others. A connection counts whenever its input is not zero.
  operations({ image, hidden }) {
    return this.about.layers.map((layer, index) => {
      const active = index ? hidden[index - 1] : image;
      const count = index ? ones : (pixel) => Number(pixel !== 0);
      const fan = fanOut(layer);
      let sum = 0;
      active.forEach((value, at) => { if (value) sum += count(value) * fan(Math.floor(at / layer.before[0])); });
      return sum;
    });
  }

  // Mean spikes per neuron and step.
  firing(activity) {
    return activity.reduce((sum, mask) => sum + ones(mask), 0) / (activity.length * this.steps);
  }
}

// Returns a function that maps an input position, counted row by row, to its number of connections to all outputs.
function fanOut({ kernel, stride, padding, before: [, height, width], units }) {
  if (!kernel) return () => units;
  const reach = (size) => {
    const outputs = Math.floor((size + 2 * padding - kernel) / stride) + 1;
    return Array.from({ length: size }, (_, place) => {
      let seen = 0;
      for (let o = 0; o < outputs; o++) {
        const at = place + padding - o * stride;
        if (at >= 0 && at < kernel) seen++;
      }
      return seen;
    });
  };
  const [rows, columns] = [reach(height), reach(width)];
  return (place) => rows[Math.floor(place / width)] * columns[place % width] * units;
}

function ones(mask) {
  let count = 0;
  for (; mask; mask &= mask - 1) count++;
  return count;
}

function softmax(values) {
  const most = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - most));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
