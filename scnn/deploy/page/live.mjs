// The live page: takes in words, and shows the answer, the activity of every layer, and the cost.
import { Gate, Resampler, decoded, microphone, pcm } from "./gate.mjs";
import { Network, bytes } from "./network.mjs";

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

export class Live {
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
export const scnnLive = { Gate, Network, Resampler, pcm };
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
