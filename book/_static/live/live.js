// Written by scnn.deploy.live from the modules of scnn/deploy/page.
(() => {
// The recogniser, for web pages and Node:
//     const recogniser = await load("scnn.wasm");
//     const { answer, scores } = recogniser.recognise(samples);
// `samples` is an Int16Array at recogniser.sampleRate; `answer` is one of recogniser.classes, or null for silence.

async function load(source) {
  const bytes = source instanceof ArrayBuffer || ArrayBuffer.isView(source)
    ? source
    : await (await fetch(source)).arrayBuffer();
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const c = instance.exports;
  const text = (at) => {
    const memory = new Uint8Array(c.memory.buffer);
    return new TextDecoder().decode(memory.subarray(at, memory.indexOf(0, at)));
  };
  const classes = Array.from({ length: c.scnn_classes() }, (_, index) => text(c.scnn_name(index)));
  return {
    classes,
    sampleRate: c.scnn_rate(),
    mostSamples: c.scnn_most_samples(),
    mostSteps: c.scnn_most_steps(),

    // Change the number of time steps, up to mostSteps, and scale the thresholds by 0.5 to 2.
    tune(steps, threshold = 1) {
      if (c.scnn_tune(steps, Math.round(256 * threshold))) {
        throw new RangeError(
          `steps must be in 1..${c.scnn_most_steps()}, threshold in 0.5..2; not ${steps}, ${threshold}`);
      }
    },

    recognise(samples) {
      if (samples.length > c.scnn_most_samples()) {
        throw new RangeError(`at most ${c.scnn_most_samples()} samples, not ${samples.length}`);
      }
      new Int16Array(c.memory.buffer, c.scnn_input(), samples.length).set(samples);
      const best = c.scnn_answer(samples.length);
      const scores = Array.from(new Int32Array(c.memory.buffer, c.scnn_answers(), classes.length));
      return { answer: best < 0 ? null : classes[best], scores };
    },

    // For the last recording: the image, an Int16Array, and the activity of each hidden layer, one byte per neuron.
    traced() {
      const ends = Array.from({ length: c.scnn_records() }, (_, record) => c.scnn_end(record));
      const parts = ends.map((end, record) => c.memory.buffer.slice(
        c.scnn_traced() + (record ? ends[record - 1] : 0), c.scnn_traced() + end));
      return { image: new Int16Array(parts[0] ?? 0), hidden: parts.slice(1).map((part) => new Uint8Array(part)) };
    },
  };
}

// From a microphone to words: resampling, and the gate of scnn.listen.

// Converts samples to another rate with a windowed-sinc low-pass filter.
class Resampler {
  constructor(from, to, crossings = 16) {
    this.step = from / to;
    const cut = Math.min(1, to / from) * 0.94; // share of the lower Nyquist frequency; the rest is the transition band
    this.reach = Math.ceil(crossings / cut);
    this.weight = (t) => {
      const x = Math.PI * t * cut;
      return Math.abs(t) >= this.reach
        ? 0 : cut * (x ? Math.sin(x) / x : 1) * Math.cos((Math.PI * t) / (2 * this.reach)) ** 2;
    };
    this.kept = new Float32Array(this.reach); // silence before the first sample
    this.place = this.reach; // position of the next output sample in `kept`
  }

  feed(samples) {
    if (this.step === 1) return samples;
    const all = joined(this.kept, samples);
    const out = [];
    for (; this.place + this.reach < all.length; this.place += this.step) {
      let sum = 0;
      for (let i = Math.ceil(this.place - this.reach); i <= this.place + this.reach; i++) {
        sum += all[i] * this.weight(i - this.place);
      }
      out.push(sum);
    }
    const drop = Math.floor(this.place) - this.reach;
    this.kept = all.slice(drop);
    this.place -= drop;
    return Float32Array.from(out);
  }
}

// Finds words in a stream of samples, float in -1..1: `feed` returns the completed ones. The same as scnn.listen.Gate,
// whose constants are passed as `constants`. All values are integers below 2^53, so the arithmetic is exact.
class Gate {
  constructor(rate, constants) {
    Object.assign(this, constants, { rate });
    this.length = Math.floor(rate / this.frames);
    const k = Math.tan((Math.PI * this.highpass) / rate);
    const b = 1 / (1 + Math.SQRT2 * k + k * k);
    const lacking = [1 - b, 2 - 2 * (1 - k * k) * b, 2 * Math.SQRT2 * k * b];
    this.coefficients = lacking.map((value) => Math.round(value * 2 ** this.coefficient));
    [this.quiet, this.lowest] = [this.quiet, this.lowest]
      .map((share) => Math.round(share * 2 ** 30 * this.long * this.length));
    this.state = null; // of the filter: x and y of the last two samples
    this.kept = new Float32Array(0); // samples from frame `first` on
    this.energy = 0;
    this.filled = 0; // samples in the current, incomplete frame
    this.first = this.now = this.free = 0;
    this.energies = [];
    this.floors = [];
    this.opened = null;
  }

  feed(samples) {
    const found = [];
    if (!samples.length) return found;
    this.kept = joined(this.kept, samples);
    const [g, e, h] = this.coefficients;
    const times = (factor, value) => Math.floor((factor * value) / 2 ** this.coefficient);
    for (const x of pcm(samples)) {
      const [x1, x2, y1, y2] = this.state ?? [x, x, 0, 0];
      const d = (x - 2 * x1 + x2) * 2 ** this.fraction;
      const y = d + 2 * y1 - y2 - times(g, d) - times(e, y1) + times(h, y2);
      this.state = [x, x1, y, y1];
      this.energy += Math.floor(y / 2 ** this.fraction) ** 2;
      if (++this.filled === this.length) {
        const word = this.look(this.energy);
        if (word) found.push(word);
        this.now++;
        this.energy = this.filled = 0;
      }
    }
    const keep = (this.opened ?? this.now) - this.before;
    if (keep > this.first) {
      this.kept = this.kept.slice((keep - this.first) * this.length);
      this.first = keep;
    }
    return found;
  }

  flush() {
    return this.opened === null ? [] : [this.end(this.now)].filter(Boolean);
  }

  // The part heard so far of an incomplete word, or null.
  soFar() {
    return this.opened === null || this.above < this.shortest ? null : this.cut(this.now);
  }

  look(energy) {
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    if (!this.energies.length) this.energies = Array(this.long).fill(energy);
    this.energies = [...this.energies, energy].slice(-this.long);
    const level = sum(this.energies.slice(-this.short));
    const floor = sum(this.energies);
    if (this.now % this.long === 0) this.floors = [...this.floors, floor].slice(-this.memory);
    this.floors.push(Math.min(this.floors.pop(), floor));
    this.floor = Math.max(Math.min(...this.floors), this.lowest);
    if (this.now < this.known) this.floor = Math.min(this.floor, this.quiet);
    if (this.opened === null) {
      if (4 * level <= this.open * this.floor) return null;
      [this.opened, this.peak, this.above] = [this.now, 0, 0];
    }
    if (4 * level > this.close * this.floor) this.last = this.now;
    if (4 * level > this.open * this.floor) this.above++;
    this.peak = Math.max(this.peak, level);
    const over = this.now - this.last >= this.hangover || this.now - this.opened >= this.longest;
    return over ? this.end(this.now + 1) : null;
  }

  // The open segment after `heard` frames.
  cut(heard) {
    const start = Math.max(this.opened - this.before, this.free, 0);
    const end = Math.min(this.last + 1 + this.after, heard);
    const part = this.kept.slice((start - this.first) * this.length, (end - this.first) * this.length);
    return { start: (start * this.length) / this.rate, samples: part, end };
  }

  end(heard) {
    const word = this.cut(heard);
    this.opened = null;
    if (this.above < this.shortest || 4 * this.peak <= this.open * this.floor) return null;
    this.free = word.end;
    return word;
  }
}

// Rounds half to even, like Python.
function nearest(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

// Converts samples to 16-bit integers, as the network takes them.
function pcm(samples) {
  return Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, nearest(x * 32768))));
}

// The samples of an audio file at `rate`, averaged over channels. Rejects files that the browser cannot decode.
async function decoded(bytes, rate) {
  const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  const mixed = new Float32Array(audio.length);
  for (let channel = 0; channel < audio.numberOfChannels; channel++) {
    audio.getChannelData(channel).forEach((x, i) => { mixed[i] += x / audio.numberOfChannels; });
  }
  return mixed;
}

const WORKLET = `registerProcessor("scnn", class extends AudioWorkletProcessor {
  process([input]) {
    if (input[0]) this.port.postMessage(input[0].slice());
    return true;
  }
});`;

// Passes the microphone's samples at `rate` to `heard`, block by block; resolves to a function that stops the microphone.
async function microphone(rate, heard) {
  const raw = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...raw } });
  const context = new AudioContext();
  await context.resume();
  const source = context.createMediaStreamSource(stream);
  const resampler = new Resampler(context.sampleRate, rate);
  const take = (block) => heard(resampler.feed(block));
  let node;
  try {
    const code = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
    await context.audioWorklet.addModule(code);
    URL.revokeObjectURL(code);
    node = new AudioWorkletNode(context, "scnn");
    node.port.onmessage = ({ data }) => take(data);
  } catch { // an older browser, or one that loads no worklet on a page opened from a file
    node = context.createScriptProcessor(1024, 1, 1);
    node.onaudioprocess = ({ inputBuffer }) => take(inputBuffer.getChannelData(0).slice());
  }
  source.connect(node);
  node.connect(context.destination); // outputs silence
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    source.disconnect();
    node.disconnect();
    await context.close();
  };
}

function joined(first, second) {
  const all = new Float32Array(first.length + second.length);
  all.set(first);
  all.set(second, first.length);
  return all;
}

// Runs a network on recordings: its answers step by step, its spikes, and their cost.

class Network {
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

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

// The live page: takes in words, and shows the answer, the activity of every layer, and the cost.

const STILL = matchMedia("(prefers-reduced-motion: reduce)");
const PAGE = `
<p class="hint">Say one of these words at a time: <span data-part="words"></span>. The sound never leaves this page:
  nothing is sent or stored.</p>
<div class="controls">
  <button type="button" data-part="record" aria-pressed="false">Speak</button>
  <button type="button" data-part="choose">Choose a recording</button>
  <input type="file" data-part="file" accept="audio/*" hidden>
  <button type="button" data-part="play" disabled>Play it</button>
  <span class="meter" aria-hidden="true"><span data-part="level"></span></span>
</div>
<div class="controls" role="group" aria-label="Recordings to try" data-part="samples"></div>
<p class="fine" data-part="source"></p>
<div class="answer"><output data-part="answer" aria-hidden="true">–</output>
  <span data-part="detail" aria-hidden="true">Speak, drop a recording here, or choose one above.</span></div>
<p class="unseen" role="status" aria-live="polite" data-part="status"></p>
<div class="controls tune">
  <label>Time steps <input type="range" data-part="steps" min="1" step="1"> <b data-part="steps-value"></b></label>
  <label>Threshold <input type="range" data-part="threshold" min="0.5" max="2" step="0.05">
    <b data-part="threshold-value"></b></label>
  <button type="button" data-part="reset">As trained</button>
</div>
<p class="fine" data-part="right"></p>
<div data-part="result" hidden>
  <h2>What it hears</h2>
  <canvas data-part="wave" role="img"></canvas>
  <canvas data-part="image" role="img"></canvas>
  <p class="fine">Top: the waveform. Bottom: the image that the network sees, with mel bands from low (bottom) to high, and
    time from left to right.</p>
  <h2>The race of the answers</h2>
  <p class="fine">How sure the network is of each answer after its last time step. Marks show the earlier steps.</p>
  <ol class="race" data-part="race"></ol>
  <h2>Every layer, step by step</h2>
  <p class="fine">A coloured point is a neuron that spikes. In a convolution, each square is one channel, oriented like the
    image above.</p>
  <div data-part="layers"></div>
  <h2>What this word cost</h2>
  <div class="wide"><table data-part="cost"></table></div>
  <p data-part="verdict"></p>
</div>`;

class Live {
  constructor(root, network, { samples = [], source = "" } = {}) {
    Object.assign(this, { root, network, samples, word: null, stop: null });
    root.innerHTML = PAGE;
    this.parts = Object.fromEntries(
      [...root.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
    const { parts } = this;
    parts.words.textContent = network.classes.join(", ");
    parts.source.textContent = source;
    for (const sample of samples) {
      sample.pcm = new Int16Array(bytes(sample.samples).buffer);
      const button = element("button", { type: "button", textContent: sample.title });
      button.onclick = () => this.hear(sample.pcm, sample.title);
      parts.samples.append(button);
    }
    parts.record.onclick = () => (this.stop ? this.silence() : this.listen());
    parts.choose.onclick = () => parts.file.click();
    parts.file.onchange = () => this.open(parts.file.files[0]);
    parts.play.onclick = () => this.play();
    root.ondragover = (event) => event.preventDefault();
    root.ondrop = (event) => {
      event.preventDefault();
      this.open(event.dataTransfer.files[0]);
    };
    parts.steps.max = network.about.most_steps;
    parts.steps.oninput = parts.threshold.oninput = () => this.tune();
    parts.reset.onclick = () => {
      [parts.steps.value, parts.threshold.value] = [network.about.steps, 1];
      this.tune();
    };
    parts.reset.onclick();
    const redraw = () => this.word && this.draw();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    addEventListener("resize", redraw);
  }

  say(answer, detail = "", aloud = true) {
    this.parts.answer.textContent = answer;
    this.parts.detail.textContent = detail;
    if (aloud) this.parts.status.textContent = `${answer}. ${detail}`;
  }

  // ---- Input ----

  async listen() {
    const { parts, network } = this;
    const gate = new Gate(network.rate, network.about.gate);
    let looked = 0;
    try {
      this.stop = await microphone(network.rate, (block) => {
        const level = Math.max(...block.map(Math.abs), 0);
        parts.level.style.width = `${Math.min(100, 100 * Math.sqrt(level))}%`;
        for (const word of gate.feed(block)) this.hear(pcm(word.samples), "your voice");
        const early = gate.soFar();
        if (early && gate.now >= looked + 3) {
          looked = gate.now;
          const found = network.recognise(pcm(early.samples));
          if (found.answer !== null) this.say(found.sure ? found.answer : "…", "so far", false);
        }
      });
    } catch (error) {
      this.say("No microphone", `${error.message || error.name}. Choose a recording instead.`);
      return;
    }
    parts.record.textContent = "Stop";
    parts.record.setAttribute("aria-pressed", "true");
    this.say("Listening", "Say a word.");
  }

  async silence() {
    const { parts, stop } = this;
    this.stop = null;
    parts.record.textContent = "Speak";
    parts.record.setAttribute("aria-pressed", "false");
    parts.level.style.width = "0";
    await stop();
  }

  async open(file) {
    if (!file) return;
    let samples;
    try {
      samples = pcm(await decoded(await file.arrayBuffer(), this.network.rate));
    } catch {
      this.say("Not a recording", `This browser cannot decode ${file.name}.`);
      return;
    }
    if (samples.length > this.network.recogniser.mostSamples) {
      this.say("Too long", `${file.name} lasts ${(samples.length / this.network.rate).toFixed(0)} seconds.`);
      return;
    }
    this.hear(samples, file.name);
  }

  hear(samples, name) {
    this.word = { samples, name };
    this.parts.play.disabled = false;
    this.show();
  }

  play() {
    const context = new AudioContext();
    const buffer = context.createBuffer(1, this.word.samples.length, this.network.rate);
    buffer.copyToChannel(Float32Array.from(this.word.samples, (x) => x / 32768), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.onended = () => context.close();
    source.connect(context.destination);
    source.start();
  }

  tune() {
    const { parts, network } = this;
    const [steps, threshold] = [Number(parts.steps.value), Number(parts.threshold.value)];
    network.tune(steps, threshold);
    parts["steps-value"].textContent = steps;
    parts["threshold-value"].textContent = `${threshold.toFixed(2)} ×`;
    const words = this.samples.filter((sample) => sample.label !== null);
    const right = words.filter((sample) => network.recognise(sample.pcm).answer === sample.label).length;
    parts.right.textContent = words.length
      ? `With these settings, the likeliest answer is right for ${right} of the ${words.length} recordings above.` : "";
    if (this.word) this.show();
  }

  // ---- Output ----

  show() {
    const { parts, network, word } = this;
    const found = network.recognise(word.samples);
    word.found = found;
    parts.result.hidden = found.answer === null;
    if (found.answer === null) {
      this.say("Silence", `All samples of ${word.name} are zero.`);
    } else {
      const sure = `${(100 * found.confidence).toFixed(0)} % sure`;
      if (found.sure) this.say(found.answer, `${sure}: ${word.name}`);
      else this.say("Not sure", `Likeliest ${found.answer}, ${sure}: ${word.name}`);
      this.draw();
      this.race(found);
      this.count(found);
    }
    this.root.dispatchEvent(new CustomEvent("answer", { detail: found, bubbles: true }));
  }

  draw() {
    const { parts, network, word } = this;
    if (!word.found.image) return;
    const style = getComputedStyle(this.root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const seconds = (word.samples.length / network.rate).toFixed(2);
    waveform(parts.wave, word.samples, colour("--live-ink"));
    parts.wave.setAttribute("aria-label", `Waveform of ${word.name}, ${seconds} seconds`);
    const { image: { height, width }, layers } = network.about;
    const [low, high] = [Math.min(...word.found.image), Math.max(...word.found.image)];
    const shade = (x, y) => heat((word.found.image[(height - 1 - y) * width + x] - low) / (high - low));
    pixels(parts.image, width, height, shade);
    parts.image.setAttribute("aria-label", `Log-mel image of ${word.name}: ${height} bands by ${width} frames`);
    const spike = rgb(colour("--live-spike"));
    parts.layers.replaceChildren(...word.found.hidden.map((activity, index) => {
      const { name, shape } = layers[index];
      const share = (100 * network.firing(activity)).toFixed(1);
      const title = `${name}: ${activity.length.toLocaleString("en")} neurons; ${share} % of them spike per step`;
      const fields = Array.from({ length: network.steps }, (_, step) => {
        const canvas = element("canvas", { className: shape[1] * shape[2] > 1 ? "field" : "field flat" });
        maps(canvas, activity, shape, step, spike);
        return element("figure", {}, canvas, element("figcaption", { textContent: `step ${step + 1}` }));
      });
      const group = element("div", { className: "fields" }, ...fields);
      group.setAttribute("role", "img");
      group.setAttribute("aria-label", title);
      return element("div", {}, element("p", { className: "layer", textContent: title }), group);
    }));
  }

  race({ answer, shares }) {
    const { race } = this.parts;
    const bars = this.network.classes.map((name, k) => {
      const bar = element("span", { className: "bar" });
      const track = element("span", { className: "track" }, bar);
      for (const share of shares.slice(0, -1)) {
        const mark = element("i");
        mark.style.left = `${100 * share[k]}%`;
        track.append(mark);
      }
      const percent = element("span", { className: "percent" });
      const item = element("li", { className: name === answer ? "first" : "" },
        element("span", { className: "name", textContent: name }), track, percent);
      race.append(item);
      return (t) => {
        bar.style.width = `${100 * shares[t][k]}%`;
        percent.textContent = `${(100 * shares[t][k]).toFixed(0)} %`;
        return item;
      };
    });
    const at = (t) => bars.map((bar) => bar(t));
    clearInterval(this.running);
    const last = shares.length - 1;
    race.replaceChildren(...at(STILL.matches ? last : 0));
    let t = 0;
    if (STILL.matches || !last) return;
    this.running = setInterval(() => {
      at(++t);
      if (t === last) clearInterval(this.running);
    }, 350);
  }

  count(found) {
    const { parts, network } = this;
    const { layers, instructions } = network.about;
    const numbers = network.operations(found);
    const cell = (kind, text) => element(kind, { textContent: text });
    const shown = (number) => number.toLocaleString("en");
    const rows = layers.map((layer, index) => [layer.name, numbers[index], layer.macs]);
    const sums = [1, 2].map((column) => rows.reduce((sum, row) => sum + row[column], 0));
    const head = ["layer", "this word's operations", "a dense network's"].map((text) => cell("th", text));
    parts.cost.replaceChildren(
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...[...rows, ["sum", ...sums]].map(([name, ...counts]) =>
        element("tr", {}, cell("th", name), ...counts.map((count) => cell("td", shown(count)))))));
    parts.cost.querySelectorAll("thead th").forEach((th) => { th.scope = "col"; });
    parts.cost.querySelectorAll("tbody th").forEach((th) => { th.scope = "row"; });
    const adds = sums[0] - numbers[0];
    parts.verdict.textContent =
      `${shown(numbers[0])} of these operations are multiply-accumulates in the first layer, done once; the other `
      + `${shown(adds)} are additions of weights, caused by spikes. A dense network of the same shape (its ReLU twin) takes `
      + `${shown(sums[1])} multiply-accumulates for every word: ${(sums[1] / sums[0]).toFixed(1)} times as many operations.`
      + (instructions ? " From samples to answer, the recordings above take "
        + `${shown(instructions)} instructions on average on a Cortex-M4.` : "");
  }
}

// ---- Canvases ----

function waveform(canvas, samples, colour) {
  const [width, height] = sized(canvas);
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour;
  const most = samples.reduce((top, x) => Math.max(top, Math.abs(x)), 1);
  for (let x = 0; x < width; x++) {
    const part = samples.subarray((x * samples.length) / width, ((x + 1) * samples.length) / width + 1);
    const [low, high] = [Math.min(...part), Math.max(...part)];
    const top = (height / 2) * (1 - high / most);
    pen.fillRect(x, top, 1, Math.max(1, (height / 2) * (1 - low / most) - top));
  }
}

function sized(canvas) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  return [canvas.width, canvas.height];
}

function pixels(canvas, width, height, colour) {
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  const data = pen.createImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) data.data.set(colour(x, y), 4 * (y * width + x));
  }
  pen.putImageData(data, 0, 0);
}

// Draws a layer's spikes at one step, with its channels in a grid; activity is [height][width][channels].
function maps(canvas, activity, [channels, height, width], step, [red, green, blue]) {
  const flat = height * width === 1;
  const [fields, h, w] = flat ? [channels, 1, 1] : [channels, height, width];
  const columns = Math.ceil(Math.sqrt(fields * (h / w)));
  const gap = flat ? 0 : 1;
  const rows = Math.ceil(fields / columns);
  pixels(canvas, columns * (w + gap) - gap, rows * (h + gap) - gap, (x, y) => {
    const [column, row] = [Math.floor(x / (w + gap)), Math.floor(y / (h + gap))];
    const [left, top] = [x - column * (w + gap), y - row * (h + gap)];
    const channel = row * columns + column;
    if (left === w || top === h || channel >= fields) return [0, 0, 0, 0];
    const at = ((h - 1 - top) * w + left) * channels + channel;
    return (activity[at] >> step) & 1 ? [red, green, blue, 255] : [128, 128, 128, 40];
  });
}

// A colour from dark blue through green to yellow, for 0..1.
function heat(share) {
  const stops = [[20, 24, 70], [42, 92, 140], [38, 160, 134], [140, 208, 80], [253, 231, 60]];
  const place = Math.max(0, Math.min(1, share || 0)) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return [...stops[from].map((low, i) => low + (place - from) * (stops[from + 1][i] - low)), 255];
}

function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

function element(kind, properties = {}, ...children) {
  const made = Object.assign(document.createElement(kind), properties);
  made.append(...children);
  return made;
}

// network.js and samples.js define the network and the recordings; `scnnLive` gives tests access to the page.
const scnnLive = { Gate, Network, Resampler, pcm };
globalThis.scnnLive = scnnLive;
scnnLive.ready = (async () => {
  const root = document.querySelector("#scnn-live");
  try {
    scnnLive.live = new Live(root, await Network.from(globalThis.scnnNetwork), globalThis.scnnSamples);
  } catch (error) {
    root.textContent = `This page needs WebAssembly and a browser from 2022 or later (${error.message}).`;
    throw error;
  }
})();
})();
