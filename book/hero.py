"""Draw the landing page's picture: how one spoken word passes through a trained Model B.

`python book/hero.py` trains the network with the paper's settings (or finds its record in the cache) and
writes `word.wav`, `hero-light.svg` and `hero-dark.svg` to `book/_static`. The recording is from FSDD,
CC BY-SA 4.0.
"""

from pathlib import Path

import numpy as np
import soundfile

from scnn.experiment import Experiment, load_data, run
from scnn.training import predict

STATIC = Path(__file__).with_name("_static")
DIGIT, SIDE, GAP, TOP = "7", 132, 28, 34  # the word; in px: side of a panel, gap between panels, top margin
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
COLORS = {  # Okabe and Ito's blue and orange, in a shade that suits the background
    "light": {"ink": "#222", "frame": "#999", "ground": "#f1f3f5", "blue": "#0072b2", "orange": "#d55e00"},
    "dark": {"ink": "#eee", "frame": "#777", "ground": "#22262b", "blue": "#56b4e9", "orange": "#e69f00"},
}


def wave(samples: np.ndarray) -> str:
    """The path of a waveform `[samples]`: for each pixel, a vertical line from its minimum to its maximum."""
    half, chunks = SIDE / 2, np.array_split(samples / np.abs(samples).max(), SIDE)
    lines = (
        f"M{x}.5 {half - 0.92 * half * chunk.max():.1f}V{half - 0.92 * half * chunk.min() + 0.5:.1f}"
        for x, chunk in enumerate(chunks)
    )
    return f'<path stroke="{{blue}}" d="{"".join(lines)}"/>'


def pixels(strength: np.ndarray, color: str, levels: int = 6) -> str:
    """Squares for a map `[H, W]` of values in 0..1: higher values are more opaque, and 0 draws nothing."""
    size, paths = SIDE / len(strength), []
    step = np.ceil(strength * levels).astype(int)
    for level in range(1, levels + 1):
        squares = "".join(
            f"M{size * x:.2f} {size * y:.2f}h{size:.2f}v{size:.2f}h-{size:.2f}z"
            for y, x in np.argwhere(step == level)
        )
        if squares:
            paths.append(f'<path fill="{{{color}}}" opacity="{level / levels:.2f}" d="{squares}"/>')
    return "".join(paths)


def race(spikes: np.ndarray, answer: int) -> str:
    """Spikes `[T, outputs]` as a raster: a row for each output neuron, with the answer in colour."""
    steps, outputs = spikes.shape
    row, step, lines = SIDE / outputs, (SIDE - 24) / steps, []
    for output in range(outputs):
        color = "orange" if output == answer else "ink"
        middle = row * (output + 0.5)
        ticks = "".join(
            f"M{20 + step * (t + 0.5):.1f} {middle - 0.38 * row:.1f}v{0.76 * row:.1f}"
            for t in np.flatnonzero(spikes[:, output])
        )
        lines.append(f'<path stroke="{{{color}}}" stroke-width="3.5" d="{ticks}"/>' if ticks else "")
        place = f'x="5" y="{middle + 4.5:.1f}" font-size="13"'
        lines.append(f'<text {place} fill="{{{color}}}">{output}</text>')
    return "".join(lines)


def draw(panels: list[tuple[str, str, str]], alt: str, theme: str) -> str:
    """The picture as SVG, from the title, content and caption of each panel."""
    width, parts = len(panels) * SIDE + (len(panels) - 1) * GAP + 4, []
    for number, (title, inside, below) in enumerate(panels):
        left = 2 + number * (SIDE + GAP)
        parts.append(f'<g transform="translate({left} {TOP})"><rect width="{SIDE}" height="{SIDE}" rx="4"')
        parts.append(
            f' fill="{{ground}}" stroke="{{frame}}"/>{inside}<g text-anchor="middle" fill="{{ink}}">'
        )
        parts.append(f'<text x="{SIDE / 2}" y="-12" font-size="19" font-weight="600">{title}</text>')
        parts.append(f'<text x="{SIDE / 2}" y="{SIDE + 24}" font-size="17">{below}</text></g>')
        if number:
            parts.append(f'<path fill="{{frame}}" d="M-19 {SIDE / 2 - 6}l10 6l-10 6z"/>')
        parts.append("</g>")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + SIDE + 34}" role="img"'
    body = "\n".join(parts).format_map(COLORS[theme])
    return f'{head} aria-label="{alt}" font-family="{FONT}">\n{body}\n</svg>\n'


def main() -> None:
    """Train, choose the first test recording of the word that is recognised, and write the files."""
    experiment = Experiment(corpus="fsdd-1.0.8", model="B", epochs=20)
    network, data = run(experiment).network(), load_data(experiment)
    answer = data.corpus.classes.index(DIGIT)
    spoken = [clip for clip in data.split.test if data.labels[clip] == answer]
    clip = next(one for one in spoken if predict(network, data.images.values[[one]]) == answer)
    image, window = data.images.values[[clip]], data.images.window[clip].numpy()
    first, *_, last = network.trace(image)
    sound, rate = data.corpus.waveforms[clip], data.corpus.sample_rate

    values = image[0, 0].numpy()[::-1]  # the lowest coefficient at the bottom, as on the pages
    signs = np.log1p(np.abs(values)) / np.log1p(np.abs(values).max())
    fired = first.spikes[:, 0].mean(dim=(0, 1)).numpy()[::-1]  # share of steps and channels, [H, W]
    never = 100 * (fired == 0).mean()
    panels = [
        (f"a spoken {DIGIT}", wave(sound), f"{len(sound) / rate:.2f} s"),
        (
            "its image",
            pixels(signs * (values > 0), "orange") + pixels(signs * (values < 0), "blue"),
            f"{100 * (1 - window.mean()):.0f} % padding",
        ),
        ("spikes", pixels(fired / fired.max(), "orange"), f"{never:.0f} % silent"),
        ("answer", race(last.spikes[:, 0].numpy(), answer), f"{len(last.spikes)} time steps"),
    ]
    alt = (
        f"A recording of the word {DIGIT}; its image, which is mostly empty padding; the spikes of the first "
        "layer, which lie where the image has data; and ten output neurons, of which number "
        f"{DIGIT} spikes most."
    )
    for theme in COLORS:
        (STATIC / f"hero-{theme}.svg").write_text(draw(panels, alt, theme), encoding="utf-8")
    soundfile.write(STATIC / "word.wav", sound, rate, "PCM_16")
    print(f"speaker {data.corpus.speakers[clip]}, take {data.corpus.takes[clip]}")


if __name__ == "__main__":
    main()
