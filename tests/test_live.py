"""The live page in a browser: the same bits as Python for every recording, and accessibility."""

import base64
import functools
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from scnn import metrics
from scnn.data import ESPEAK_FOLDER, load_corpus, read_audio
from scnn.deploy import live, load_program, reference, tuned
from scnn.experiment import Experiment, run
from scnn.features import Features
from scnn.listen import Gate

LOGMEL = Features(
    kind="logmel", bands=16, height=18, width=24, frame=128, hop=256, trim_db=30, normalization="clip"
)
COMMITTED = Path(__file__).parents[1] / "book" / "_static" / "live"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def network(home):
    """The file of a small trained network."""
    model = "4C3s2p1-6C3s2p1-16FC-10FC"
    experiment = Experiment(
        corpus="espeak", features=LOGMEL, model=model, num_steps=4, epochs=4, readout="membrane", refuse=0.5
    )
    return run(experiment).folder / "network.safetensors"


@pytest.fixture(scope="module")
def samples() -> list[live.Sample]:
    corpus = load_corpus("espeak")
    chosen = [live.Sample(f"{corpus.classes[corpus.labels[i]]}, {corpus.speakers[i]}",
                          corpus.classes[corpus.labels[i]],
                          np.rint(corpus.waveforms[i] * 32768).astype(np.int16))
              for i in range(3, len(corpus), 131)]  # fmt: skip
    return [*chosen, live.Sample("nothing", None, np.zeros(800, np.int16))]


@pytest.fixture(scope="module")
def folder(network, samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    live.write(network, folder, samples, "Made by eSpeak NG.")
    live.write_page(folder, "Ten <digits>", "A test.")
    return folder


@pytest.fixture(scope="module")
def word(tmp_path_factory):
    """A packaged recording with silence around it, at 8 kHz and as the browser's microphone plays it."""
    (name,) = ESPEAK_FOLDER.glob("7_en-us-m3_0.flac")
    quiet = np.random.default_rng(0).normal(0, 1e-4, 8000).astype(np.float32)
    samples = np.concatenate([quiet, 0.5 * read_audio(name, 8000), quiet])
    path = tmp_path_factory.mktemp("sound") / "word.wav"
    soundfile.write(path, soxr.resample(samples, 8000, 48000), 48000, subtype="PCM_16")
    return samples, path


@pytest.fixture(scope="module")
def browser(word):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs a Chromium browser: neither chromium nor google-chrome is on the path")
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={word[1]}%noloop",
    ]
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Open the page from its file, or from another address; its console must have no errors at the end."""
    contexts, problems = [], []

    def opened(url: str = "", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and problems.append(message.text))
        page.goto(url or (folder / "index.html").as_uri())
        page.evaluate("scnnLive.ready")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def server(folder):
    """The page's address on a local web server, and the paths requested from it."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/index.html", asked
        http.shutdown()


def button(page, name: str):
    return page.get_by_role("button", name=name, exact=True)


def part(page, name: str):
    return page.locator(f"[data-part={name}]")


def total(page) -> int:
    """The sum of a word's operations in the cost table."""
    return int(part(page, "cost").locator("tbody tr").last.locator("td").first.inner_text().replace(",", ""))


RECOGNISE = """(samples) => {
    const { network } = scnnLive.live;
    const found = network.recognise(Int16Array.from(samples));
    const operations = found.answer === null ? [] : network.operations(found);
    return {
        ...found, operations, image: Array.from(found.image ?? []),
        hidden: (found.hidden ?? []).map((layer) => Array.from(layer)),
    };
}"""


@pytest.mark.parametrize(("steps", "threshold"), [(4, 1.0), (1, 1.0), (7, 1.5), (3, 0.5)])
def test_every_recording_has_pythons_answer_spikes_and_cost(open_page, network, samples, steps, threshold):
    page = open_page()
    page.evaluate("([steps, threshold]) => scnnLive.live.network.tune(steps, threshold)", [steps, threshold])
    program = tuned(load_program(network), steps, round(256 * threshold))
    trained = run(Experiment.from_json(json.dumps(live.load_network(network)[1]["experiment"]))).network()
    fans = [metrics._fan_out(trained, depth) for depth in range(len(trained.layers))]
    unit = program.layers[-1].scale.max()
    for sample in samples[:-1]:
        found = page.evaluate(RECOGNISE, sample.pcm.tolist())
        wanted = reference.recognise(program, [sample.pcm])
        assert found["answer"] == program.classes[wanted.answers[0]]
        assert found["scores"][-1] == wanted.scores[0].tolist()
        assert found["image"] == program.front_end.images([sample.pcm])[0].ravel().tolist()
        assert found["hidden"] == [layer[0].ravel().tolist() for layer in wanted.hidden]
        # The membranes of each step, from programs with fewer steps; the confidence as in scnn.__main__.hear.
        sums = [reference.recognise(tuned(program, t), [sample.pcm]).scores[0] for t in range(1, steps + 1)]
        membranes = torch.tensor(np.diff(sums, axis=0, prepend=0) * unit)
        shares = torch.softmax(membranes, dim=1).mean(dim=0)
        assert found["confidence"] == pytest.approx(shares[wanted.answers[0]].item())
        assert found["sure"] == (found["confidence"] >= 0.5)
        inputs = [np.array(found["image"]).reshape(1, 18, 24) != 0]
        for layer, activity in zip(program.layers, wanted.hidden, strict=False):
            counts = np.bitwise_count(activity[0]).transpose(2, 0, 1)
            inputs.append(counts.reshape(layer.shape))
        operations = [
            int((torch.tensor(x.astype(int)) * fan).sum()) for x, fan in zip(inputs, fans, strict=True)
        ]
        assert found["operations"] == operations
    silent = page.evaluate(RECOGNISE, samples[-1].pcm.tolist())
    assert silent["answer"] is None and not silent["sure"]


def test_the_confidence_is_that_of_the_command_line(open_page, network, samples):
    from scnn.__main__ import hear

    trained, about = live.load_network(network)
    page = open_page()
    differences = []
    for sample in samples[:-1]:
        found = page.evaluate(RECOGNISE, sample.pcm.tolist())
        wanted = hear(sample.pcm / np.float32(32768), trained, about)
        differences.append(abs(found["confidence"] - wanted["confidence"]))
    assert (
        np.median(differences) < 0.02
    )  # because of 8-bit weights, and a few spikes that come one step later


def test_a_recording_is_answered_when_its_button_is_pressed(open_page, server, samples):
    url, asked = server
    page = open_page(url)
    loaded = len(asked)
    for sample in samples[:3]:
        button(page, sample.title).press("Enter")
        found = page.evaluate(RECOGNISE, sample.pcm.tolist())
        said = part(page, "status").inner_text()
        assert said.startswith(found["answer"] if found["sure"] else f"Not sure. Likeliest {found['answer']}")
        assert f"{100 * found['confidence']:.0f} % sure" in said
        assert part(page, "race").locator("li").count() == 10
        assert part(page, "layers").locator("canvas").count() == 3 * 4
        assert total(page) == sum(found["operations"])
    button(page, "nothing").click()
    assert part(page, "status").inner_text().startswith("Silence")
    assert part(page, "result").is_hidden()
    assert len(asked) == loaded, "the page asks for nothing while it is used"


def test_the_sliders_try_other_steps_and_thresholds(open_page, samples):
    page = open_page()
    button(page, samples[0].title).click()
    part(page, "steps").press("End")
    assert part(page, "steps-value").inner_text() == "8"
    assert part(page, "layers").locator("canvas").count() == 3 * 8
    costs = []
    for key in ("Home", "End"):
        part(page, "threshold").press(key)
        costs.append(
            int(part(page, "cost").locator("tbody tr").last.locator("td").first.inner_text().replace(",", ""))
        )
    assert costs[0] > costs[1], "a higher threshold costs less"
    assert "recordings above" in part(page, "right").inner_text()
    button(page, "As trained").click()
    assert page.evaluate("[scnnLive.live.network.steps, scnnLive.live.network.threshold]") == [4, 1]


def test_a_file_is_answered_as_python_reads_it(open_page, network, tmp_path):
    page = open_page()
    program = load_program(network)
    (flac,) = ESPEAK_FOLDER.glob("4_en-gb-f3_2.flac")
    part(page, "file").set_input_files(flac)
    page.wait_for_function("scnnLive.live.word")
    wanted = reference.recognise(program, [np.rint(read_audio(flac, 8000) * 32768).astype(np.int16)])
    assert page.evaluate("scnnLive.live.word.found.scores.at(-1)") == wanted.scores[0].tolist()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF, or not")
    part(page, "file").set_input_files(broken)
    page.wait_for_function("document.querySelector('[data-part=answer]').textContent === 'Not a recording'")
    assert "cannot decode broken.wav" in part(page, "status").inner_text()


@pytest.mark.parametrize("fallback", [False, True], ids=["worklet", "script processor"])
def test_a_word_said_to_the_microphone_is_answered(open_page, server, network, word, fallback):
    """The page finds the same word as Python's gate, and gives the reference's answer to it."""
    page = open_page(server[0])
    if fallback:
        page.evaluate("() => { AudioWorklet.prototype.addModule = () => Promise.reject(new Error()); }")
    button(page, "Speak").click()
    assert page.wait_for_function("scnnLive.live.word", timeout=15_000)
    assert button(page, "Stop").get_attribute("aria-pressed") == "true"
    button(page, "Stop").click()
    assert button(page, "Speak").get_attribute("aria-pressed") == "false"
    heard = np.array(page.evaluate("Array.from(scnnLive.live.word.samples)"), dtype=np.int16)
    gate = Gate(8000)
    (segment,) = [*gate.feed(word[0]), *gate.flush()]
    assert len(heard) == pytest.approx(len(segment.samples), abs=3 * 80)
    program = load_program(network)
    wanted = reference.recognise(program, [heard, np.rint(segment.samples * 32768).astype(np.int16)])
    assert page.evaluate("scnnLive.live.word.found.scores.at(-1)") == wanted.scores[0].tolist()
    assert wanted.answers[0] == wanted.answers[1]


def test_the_gate_is_pythons(open_page):
    page = open_page()
    rng = np.random.default_rng(0)
    words = load_corpus("espeak").waveforms[::200]
    pauses = [rng.normal(0, 0.001, 4000).astype(np.float32) for _ in words]
    stream = np.concatenate([part for pair in zip(pauses, words, strict=True) for part in pair])
    stream[12_000:13_000] += 0.3  # an offset, like that of a bad sound card
    gate = Gate(8000)
    wanted = [*gate.feed(stream), *gate.flush()]
    assert len(wanted) >= 5
    found = page.evaluate(
        """(samples) => {
            const gate = new scnnLive.Gate(8000, scnnLive.live.network.about.gate);
            const words = [];
            for (let i = 0; i < samples.length; i += 37) {
                words.push(...gate.feed(Float32Array.from(samples.slice(i, i + 37))));
            }
            return [...words, ...gate.flush()].map((word) => [word.start, word.samples.length]);
        }""",
        stream.tolist(),
    )
    assert found == [[pytest.approx(word.start), len(word.samples)] for word in wanted]


def test_the_first_answer_comes_within_a_tenth_of_a_second_of_the_word(open_page, word):
    """In a microphone's stream, the final answer appears within 100 ms of the word's last loud frame."""
    page = open_page()
    late = page.evaluate(
        """(samples) => {
            const { network } = scnnLive.live;
            const gate = new scnnLive.Gate(8000, network.about.gate);
            const early = [];
            let word;
            for (let i = 0; i < samples.length && !word; i += 80) {
                [word] = gate.feed(Float32Array.from(samples.slice(i, i + 80)));
                const sofar = word ?? gate.soFar();
                const begin = performance.now();
                if (sofar) early.push([gate.now, network.recognise(scnnLive.pcm(sofar.samples)).answer]);
                if (performance.now() - begin > 50) throw new Error("an answer took more than 50 ms");
            }
            const final = early.at(-1)[1];
            const first = early.findLastIndex(([, answer]) => answer !== final) + 1;
            return 10 * (early[first][0] - (word.end - network.about.gate.after));
        }""",
        word[0].tolist(),
    )
    assert late <= 100  # milliseconds


@pytest.mark.parametrize("rate", [44_100, 48_000, 16_000])
def test_resampling_keeps_what_8_khz_can_hold(open_page, rate):
    page = open_page()
    t = np.arange(rate) / rate
    low, high = np.sin(2 * np.pi * 1000 * t), np.sin(2 * np.pi * 5200 * t)
    resample = """([samples, rate]) => {
        const made = new scnnLive.Resampler(rate, 8000);
        const out = [];
        for (let i = 0; i < samples.length; i += 128) {
            out.push(...made.feed(Float32Array.from(samples.slice(i, i + 128))));
        }
        return out;
    }"""
    kept = np.array(page.evaluate(resample, [low.tolist(), rate]))
    assert len(kept) == pytest.approx(8000, abs=40)
    wanted = np.sin(2 * np.pi * 1000 * np.arange(len(kept)) / 8000)
    assert np.abs(kept - wanted)[100:-100].max() < 0.01
    assert np.abs(page.evaluate(resample, [high.tolist(), rate]))[100:-100].max() < 0.01


@pytest.mark.parametrize("options", [
    {"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 420, "height": 800}},
], ids=["light", "dark", "phone"])  # fmt: skip
def test_the_page_has_no_barrier(open_page, server, samples, options):
    """axe-core finds no violation of WCAG 2 A and AA, and nothing is wider than the screen."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = open_page(server[0], **options, reduced_motion="reduce")
    button(page, samples[0].title).click()
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    result = axe.Axe().run(page, options=rules)
    assert result.response["violations"] == [], result.generate_report()
    assert len(result.response["passes"]) > 10
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_moves_for_those_who_ask_for_that(open_page, samples):
    page = open_page(reduced_motion="reduce")
    button(page, samples[0].title).click()
    shown = part(page, "race").locator(".first .percent").inner_text()
    assert shown == f"{100 * page.evaluate('scnnLive.live.word.found.confidence'):.0f} %"


def test_a_network_without_spikes_is_refused(home, tmp_path):
    experiment = Experiment(corpus="espeak", features=LOGMEL, model="4FC-10FC", spiking=False, epochs=1)
    with pytest.raises(ValueError, match="needs a spiking network with readout 'membrane', not a ReLU"):
        live.write(run(experiment).folder / "network.safetensors", tmp_path / "page", [])
    assert not (tmp_path / "page").exists()


def test_recordings_are_in_the_page_bit_by_bit(folder, samples):
    text = (folder / "samples.js").read_text().removeprefix("globalThis.scnnSamples = ").rstrip(";\n")
    said = json.loads(text)
    assert said["source"] == "Made by eSpeak NG."
    for sample, wanted in zip(said["samples"], samples, strict=True):
        assert (sample["title"], sample["label"]) == (wanted.title, wanted.label)
        assert base64.b64decode(sample["samples"]) == wanted.pcm.astype("<i2").tobytes()


def committed(name: str) -> dict:
    """The data in a script of the book's page."""
    return json.loads((COMMITTED / name).read_text().split(" = ", 1)[1].rstrip(";\n"))


@pytest.fixture(scope="module")
def digits() -> list[live.Sample]:
    """The recordings of the book's page."""
    return [
        live.Sample(each["title"], each["label"], np.frombuffer(base64.b64decode(each["samples"]), "<i2"))
        for each in committed("samples.js")["samples"]
    ]


def test_the_books_page_is_written_from_the_packaged_network(digits, tmp_path):
    """`python -m scnn.deploy.live` writes the committed files, byte by byte."""
    live.write(live.PRETRAINED, tmp_path, digits, live.FSDD)
    for path in tmp_path.iterdir():
        assert path.read_text() == (COMMITTED / path.name).read_text(), f"{path.name} is not of this network"
    assert len(base64.b64decode(committed("network.js")["wasm"])) <= 100_000


def test_the_books_recordings_are_those_of_fsdd(digits, fsdd):
    for found, wanted in zip(digits, live.digits(), strict=True):
        assert found[:2] == wanted[:2] and (found.pcm == wanted.pcm).all()
    assert "CC BY-SA 4.0" in committed("samples.js")["source"]


def test_the_books_page_answers_its_recordings_as_python_does(open_page, digits, tmp_path):
    shutil.copytree(COMMITTED, tmp_path / "page")
    page = open_page(live.write_page(tmp_path / "page", "Digits", "").as_uri())
    program = load_program(live.PRETRAINED)
    wanted = reference.recognise(program, [sample.pcm for sample in digits])
    assert len(digits) > 10
    for index, sample in enumerate(digits):
        found = page.evaluate(RECOGNISE, sample.pcm.tolist())
        assert found["answer"] == program.classes[wanted.answers[index]]
        assert found["scores"][-1] == wanted.scores[index].tolist()
        assert found["hidden"] == [layer[index].ravel().tolist() for layer in wanted.hidden]
