"""A `Program` as C99: fixed sources, and one header with the network's weights, tables and sizes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scnn import listen
from scnn.deploy import reference, stream
from scnn.deploy.frontend import PEAK_SHIFT, QUIETER, RANGE
from scnn.deploy.quantize import LANES, Layer, Program

SOURCES = Path(__file__).parent / "c"
COPIED = ("scnn.h", "scnn_memory.h", "scnn_layers.h", "scnn_frontend.c", "scnn_stream.c", "main.c")
CORE = ("scnn_frontend.c", "scnn_network.c")  # needed by every application
STREAM = "scnn_stream.c"  # also needed to listen to a stream
GATE = "fraction open close short long memory known hangover before after shortest"
_RESETS = ("none", "subtract", "zero")
_NORMALIZATIONS = ("fixed", "clip", "band", "peak")
_STRUCT = """struct scnn_layer {
    int32_t channels, height, width;              /* input */
    int32_t outputs, out_height, out_width;       /* output, after pooling */
    int32_t kernel, stride, padding;              /* of a convolution; kernel 0: fully connected */
    int32_t pool, pool_stride;                    /* pool 0: none */
    int32_t bits, row_bytes;                      /* per weight, and per row of weights */
    int32_t fraction, shift, factor, reset, lanes;
    const int16_t *weights16;                     /* first layer: [outputs][inputs] */
    const uint8_t *weights;                       /* spiking: [inputs][outputs]; ReLU: [outputs][inputs] */
    const int32_t *bias, *threshold, *multiplier; /* [outputs] */
    const uint8_t *background;                    /* [outputs]: activity without any input */
    const int32_t *quiet;                         /* [outputs], first layer: largest sum without a spike */
    const int16_t *quiet_halves;                  /* the same for a later layer whose sums fit 16 bits */
};"""


def emit(program: Program, folder: Path | str) -> dict[str, int]:
    """Write the C sources of `program` to `folder`, and return the size of each table of constants in bytes.

    The folder is created if necessary.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        (folder / name).write_text((SOURCES / name).read_text())
    network = (SOURCES / "scnn_network.c").read_text()
    layers = _layers(program)
    network = network.replace("@LAYERS@", "\n\n".join(layers.values()))
    network = network.replace("@CALLS@", "\n    ".join(f"{name}();" for name in layers))
    (folder / "scnn_network.c").write_text(network)
    tables = Tables()
    (folder / "scnn_model.h").write_text(_model(program, tables))
    (folder / "README.md").write_text(_readme(program, tables.bytes))
    return tables.bytes


class Tables:
    """Formats arrays as C, and records the size of each in bytes."""

    def __init__(self):
        self.bytes: dict[str, int] = {}

    def __call__(self, name: str, values: Iterable[int], kind: str) -> str:
        values = np.asarray(values, dtype=kind).ravel()
        self.bytes[name] = values.nbytes
        width = 24 if values.itemsize == 1 else 12
        lines = [", ".join(map(_literal, values[i : i + width])) for i in range(0, len(values), width)]
        body = ",\n    ".join(lines)
        return f"SCNN_ALIGNED static const {kind}_t {name}[{len(values)}] = {{\n    {body}}};"


def _literal(value) -> str:
    return "-2147483647 - 1" if value == -(2**31) else str(value)


def _model(program: Program, table: Tables) -> str:
    front_end, layers = program.front_end, program.layers
    f = front_end.features
    mean, gain, shift = front_end.fixed or (0, 0, 0)
    levels, peak_gain, equalize = front_end.peak
    rows = [0] + [_inputs(layer) for layer in layers[1:]]
    if not program.spiking:  # only convolutions, padded to whole words of 2-bit weights
        rows = [32] + [_inputs(layer) for layer in layers[1:] if layer.notation.kernel]
        rows = [-(-row // 16) * 16 for row in rows]
    patch = layers[0].notation.kernel ** 2
    sizes = [int(np.prod(layer.shape)) for layer in layers[:-1]]
    defines = {
        "SAMPLE_RATE": front_end.sample_rate,
        "FRAME": f.frame,
        "HOP": f.hop,
        "BANDS": f.bands,
        "HEIGHT": f.height,
        "WIDTH": f.width,
        "EMPHASIS": front_end.emphasis,
        "TRIM": front_end.trim,
        "TRIM_FRAME": f.trim_frame,
        "TRIM_FLOOR": f"{front_end.trim_floor}u",
        "QUIETER": QUIETER,
        "LOUDEST": int(f.crop == "loudest"),
        "OFFSET": front_end.offset,
        "RANGE": RANGE,
        "NORMALIZATION": f"SCNN_{'FIXED' if front_end.fixed else f.normalization.upper()}",
        "MEAN": mean,
        "GAIN": gain,
        "SHIFT": shift,
        "PEAK_RANGE": levels,
        "PEAK_GAIN": peak_gain,
        "PEAK_SHIFT": PEAK_SHIFT,
        "EQUALIZE": equalize,
        "SPIKING": int(program.spiking),
        "STEPS": program.steps,
        "MEMBRANE": int(program.readout == "membrane"),
        "CLASSES": len(program.classes),
        "MOST_OUTPUTS": max(_padded(layer) for layer in layers),
        "MOST_ROWS": max(rows),
        "MOST_PAIRS": max(1, (patch + 1) // 2),
        "ODD_BYTES": max(sizes[0::2], default=1),
        "EVEN_BYTES": max(sizes[1::2], default=1),
        **_stream(program),
    }
    names = ", ".join(f'"{_escaped(name)}"' for name in program.classes)
    parts = [
        f"/* Constants of {program.architecture}, {_unit(program)}. Written by `scnn export`. */",
        "#ifndef SCNN_MODEL_H\n#define SCNN_MODEL_H\n\n#include <stdint.h>",
        "#if defined(__GNUC__)\n"
        "#define SCNN_ALIGNED __attribute__((aligned(4)))\n#else\n#define SCNN_ALIGNED\n#endif",
        "\n".join(f"#define SCNN_{name} {value}" for name, value in defines.items()),
        f"#define SCNN_CLASS_NAMES {{{names}}}",
        "/* The kinds of reset after a spike, and of normalisation of the image. */\n"
        + "\n".join(
            f"#define SCNN_{n.upper()} {i}"
            for names in (_RESETS, _NORMALIZATIONS)
            for i, n in enumerate(names)
        ),
        _STRUCT,
        "#ifdef SCNN_FRONTEND_TABLES",
        *_front_end_tables(program, table),
        "#endif",
        "#ifdef SCNN_STREAM_TABLES",
        table("scnn_powers", stream.POWERS, "uint16"),
        table("scnn_gains", stream.gains(program)[0], "int32"),
        "#endif",
        "#ifdef SCNN_LAYER_TABLES",
        *(_layer(program, index, table) for index in range(len(layers))),
        "#endif",
        "#endif\n",
    ]
    return "\n\n".join(parts)


def _stream(program: Program) -> dict[str, int | str]:
    """The constants of the gate and the confidence."""
    gate = listen.Gate(program.front_end.sample_rate)
    spare = 32 - listen.COEFFICIENT  # a shift by 32 is free: it just takes the upper half of the product
    if max(gate.coefficients) << spare >= 2**31:
        spare = 0
    g, e, h = (value << spare for value in gate.coefficients)
    return {
        **{name.upper(): getattr(listen, name.upper()) for name in GATE.split()},
        "USUALLY_LONGEST": gate.longest,
        "FRAME_SAMPLES": gate.length,
        "HIGHPASS_SHIFT": listen.COEFFICIENT + spare,
        "HIGHPASS_G": g,
        "HIGHPASS_E": e,
        "HIGHPASS_H": h,
        "QUIET": f"{gate.quiet}u",
        "LOWEST": f"{gate.lowest}u",
        "GAINS_SHIFT": stream.gains(program)[1],
        "REFUSE": stream.least(program),
    }


def _front_end_tables(program: Program, table: Tables) -> list[str]:
    front_end = program.front_end
    return [
        table("scnn_window", front_end.window, "int16"),
        table("scnn_order", front_end.order, "uint16"),
        table("scnn_twiddles", front_end.twiddles, "int32"),
        table("scnn_logarithm", front_end.logarithm, "uint16"),
        table("scnn_band_first", [first for first, _ in front_end.bands], "uint16"),
        table("scnn_band_count", [len(weights) for _, weights in front_end.bands], "uint16"),
        table("scnn_band_weights", np.concatenate([w for _, w in front_end.bands]), "uint16"),
    ]


def _layer(program: Program, index: int, table: Tables) -> str:
    layer, name, notation = program.layers[index], f"scnn_{index + 1}", program.layers[index].notation
    zero = np.zeros((1, 1, layer.shape[0]), dtype=np.int64)
    fields = {
        **dict(zip(("channels", "height", "width"), layer.before, strict=True)),
        **dict(zip(("outputs", "out_height", "out_width"), layer.shape, strict=True)),
        "kernel": notation.kernel,
        "stride": notation.stride,
        "padding": notation.padding,
        "pool": notation.pool,
        "pool_stride": notation.pool_stride or 1,
        "bits": layer.bits,
        "row_bytes": 0,
        "fraction": layer.fraction,
        "shift": -1 if layer.leak.shift is None else layer.leak.shift,
        "factor": layer.leak.factor,
        "reset": f"SCNN_{layer.reset.upper()}",
        "lanes": int(index > 0 and layer.magnitude.max() << 8 - layer.bits <= LANES),
    }
    arrays = {"bias": (layer.bias, "int32")}
    if index == 0:
        flat = layer.weights.reshape(layer.shape[0], -1)
        odd = flat.shape[1] % 2 if notation.kernel else 0  # the C reads a kernel's inputs in pairs
        arrays["weights16"] = np.pad(flat, [(0, 0), (0, odd)]), "int16"
    else:
        packed = packed_rows(weight_rows(program, index), layer.bits)
        arrays["weights"] = packed, "uint8"
        fields["row_bytes"] = packed.shape[1]
    if layer.threshold is not None:
        arrays["threshold"] = layer.threshold, "int32"
        if index == 0:
            arrays["quiet"] = quiet(layer, program.steps), "int32"
        elif fields["lanes"]:
            shifted = np.pad(quiet(layer, program.steps), (0, layer.shape[0] % 2)) << 8 - layer.bits
            arrays["quiet_halves"] = np.clip(shifted, -LANES, LANES), "int16"
        spikes, _ = reference.fire(layer, zero, program.steps)
        background = np.sum([spikes[t, 0] << t for t in range(program.steps)], axis=0)
    elif index < len(program.layers) - 1:
        background = np.clip((layer.bias * layer.multiplier + 2**31) >> 32, 0, 255)
    if layer.multiplier is not None:
        arrays["multiplier"] = layer.multiplier, "int32"
    if notation.kernel:
        arrays["background"] = background, "uint8"
    values = [f".{field} = {value}" for field, value in fields.items()]
    values += [f".{field} = {name}_{field}" for field in arrays]
    tables = [table(f"{name}_{field}", *content) for field, content in arrays.items()]
    lines = "".join(f"    {', '.join(values[i : i + 4])},\n" for i in range(0, len(values), 4))
    return "\n".join(
        [f"/* {layer.name} */", *tables, f"static const struct scnn_layer {name} = {{\n{lines}}};"]
    )


def quiet(layer: Layer, steps: int) -> np.ndarray:
    """The largest sum, int64 [outputs], that never causes a spike when applied at every step."""
    low, high = np.full(layer.shape[0], -(2**30)), np.full(layer.shape[0], 2**30)
    while (high - low).max() > 1:
        middle = (low + high) // 2
        silent = reference.fire(layer, middle[None, None], steps)[0].sum(axis=(0, 1)) == 0
        low, high = np.where(silent, middle, low), np.where(silent, high, middle)
    return low


def traced_bytes(program: Program) -> int:
    """Bytes that `scnn_trace` receives for one recording: the image and the hidden layers' activity."""
    f = program.front_end.features
    return 2 * f.height * f.width + sum(int(np.prod(layer.shape)) for layer in program.layers[:-1])


def weight_rows(program: Program, index: int) -> np.ndarray:
    """Weights of a layer after the first, with inputs in the C's order (height, width, channels).

    Returns:
        [inputs, outputs] for a spiking network, which adds up rows; [outputs, inputs] for a ReLU network.
    """
    layer = program.layers[index]
    shape = layer.weights.shape[1:] if layer.notation.kernel else layer.before
    rows = layer.weights.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(layer.weights), -1)
    return rows.T if program.spiking else rows


def packed_rows(rows: np.ndarray, bits: int) -> np.ndarray:
    """Rows of weights, packed and padded to whole words.

    The first four weights of a word occupy the lowest bits of its bytes, the next four the bits above. Each
    group of four is stored in the order 0, 2, 1, 3, because a Cortex-M unpacks bytes 0 and 2 at once, and
    then 1 and 3.

    Args:
        rows: int8 [R, n].
        bits: per weight.
    """
    per_word = 32 // bits
    padded = np.pad(rows, [(0, 0), (0, -rows.shape[1] % per_word)]).astype(np.int64)
    fields = (padded & (1 << bits) - 1).reshape(len(rows), -1, 8 // bits, 4)[..., [0, 2, 1, 3]]
    packed = (fields << bits * np.arange(8 // bits)[:, None]).sum(axis=2)
    return packed.reshape(len(rows), -1).astype(np.uint8)


def _layers(program: Program) -> dict[str, str]:
    """A C function for each layer, by name."""
    functions, before = {}, "scnn_even"
    for index, layer in enumerate(program.layers):
        name, to = f"&scnn_{index + 1}", ("scnn_odd", "scnn_even")[index % 2]
        constant, size = int(index == 0), int(np.prod(layer.shape))
        if layer.notation.kernel:
            source = "first_convolution(" if constant else "convolution("
            calls = [f"{source}{name}, {'' if constant else f'{before}.activity, '}{to}.activity);"]
        else:
            source = f"scnn_even.image, {_inputs(layer)}" if constant else f"{before}.activity"
            calls = [f"{'multiply' if constant else 'connect'}({name}, {source});"]
        if layer is program.layers[-1]:
            calls.append(f"read_out({name}, {constant});")
        else:
            if not layer.notation.kernel:
                calls.append(f"activate({name}, {constant}, {to}.activity);")
            calls.append(f"scnn_trace({to}.activity, {size});")
        body = "\n    ".join(calls)
        functions[f"layer_{index + 1}"] = (
            f"/* {layer.name} */\nSCNN_APART void layer_{index + 1}(void) {{\n    {body}\n}}"
        )
        before = to
    return functions


def _inputs(layer: Layer) -> int:
    """Number of inputs of one output."""
    return int(layer.weights[0].size)


def _padded(layer: Layer) -> int:
    """Number of outputs, padded to whole words of weights."""
    per_word = 32 // layer.bits
    return -(-layer.shape[0] // per_word) * per_word


def _unit(program: Program) -> str:
    bits = sorted({layer.bits for layer in program.layers[1:]} or {8})
    what = f"{program.steps} time steps, {program.readout} read-out" if program.spiking else "ReLU"
    return f"{what}, {'/'.join(map(str, bits))}-bit weights"


def _escaped(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)


def _readme(program: Program, sizes: dict[str, int]) -> str:
    f = program.front_end.features
    groups = {"front end": 0} | {layer.name: 0 for layer in program.layers} | {"stream": 0}
    for name, size in sizes.items():
        part = name.split("_")[1]
        part = "stream" if part in ("powers", "gains") else "front end" if not part.isdigit() else part
        groups[program.layers[int(part) - 1].name if part.isdigit() else part] += size
    frame = 1000 // listen.FRAMES  # ms
    kept, less = (
        2 * (listen.BEFORE + 1 + longest) * (program.front_end.sample_rate // listen.FRAMES)
        for longest in (listen.LONGEST, listen.FRAMES)
    )
    rows = "\n".join(f"| {name} | {size:,} |" for name, size in groups.items())
    return f"""# {program.architecture} in C

{_unit(program)[0].upper() + _unit(program)[1:]}. The program takes int16 samples at
{program.front_end.sample_rate} Hz, computes a log-mel image of {f.bands} bands (frame {f.frame}, hop
{f.hop}), and answers with one of {len(program.classes)} classes. It uses integers only: no floating point,
no malloc, no library. Python's `scnn.deploy.reference` gives the same bits.

```bash
cc -O2 -o scnn main.c scnn_frontend.c scnn_network.c scnn_stream.c
./scnn recording.wav
```

In your application, compile `scnn_frontend.c` and `scnn_network.c` and call `scnn_recognise` (see `scnn.h`).
To listen all the time, also compile `scnn_stream.c`, and pass the microphone's samples to `scnn_hear` as they
arrive, in pieces of any size. Any sound louder than the background is answered {listen.HANGOVER * frame} ms
after it ends, with a class or "not sure". For words of up to {listen.LONGEST * frame / 1000} s this takes
another {kept:,} bytes of RAM, or {less:,} for words of up to one second (`-DSCNN_LONGEST={listen.FRAMES}`).
Try it on a computer, with a recording or a microphone:

```bash
./scnn --stream recording.wav
arecord -q -t raw -f S16_LE -r {program.front_end.sample_rate} | ./scnn --stream -
```

`scnn listen --integers` hears the same words. `scnn_model.h` contains all constants of this network:

| constants | bytes |
|---|---|
{rows}
| sum | {sum(sizes.values()):,} |
"""
