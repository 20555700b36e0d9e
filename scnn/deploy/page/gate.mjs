// From a microphone to words: resampling, and the gate of scnn.listen.

// Converts samples to another rate with a windowed-sinc low-pass filter.
export class Resampler {
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
export class Gate {
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
export function pcm(samples) {
  return Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, nearest(x * 32768))));
}

// The samples of an audio file at `rate`, averaged over channels. Rejects files that the browser cannot decode.
export async function decoded(bytes, rate) {
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
export async function microphone(rate, heard) {
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
