// The recogniser, for web pages and Node:
//     const recogniser = await load("scnn.wasm");
//     const { answer, scores } = recogniser.recognise(samples);
// `samples` is an Int16Array at recogniser.sampleRate; `answer` is one of recogniser.classes, or null for silence.

export async function load(source) {
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
