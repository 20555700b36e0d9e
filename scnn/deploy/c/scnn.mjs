// The recogniser for a page or for Node:
//     const recogniser = await load("scnn.wasm");
//     const { answer, scores } = recogniser.recognise(samples);
// `samples` is an Int16Array at recogniser.sampleRate; `answer` is a name of recogniser.classes, or null for silence.

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
    recognise(samples) {
      if (samples.length > c.scnn_most_samples()) {
        throw new RangeError(`at most ${c.scnn_most_samples()} samples, not ${samples.length}`);
      }
      new Int16Array(c.memory.buffer, c.scnn_input(), samples.length).set(samples);
      const best = c.scnn_answer(samples.length);
      const scores = Array.from(new Int32Array(c.memory.buffer, c.scnn_answers(), classes.length));
      return { answer: best < 0 ? null : classes[best], scores };
    },
  };
}
