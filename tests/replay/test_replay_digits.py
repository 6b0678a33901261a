"""UCI digits (scikit-learn's copy, 1,797 items): the preset that comes from them, its ranked list and its pictures."""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from tests.model import reference
from tests.replay.browser import CHROMIUM, browse
from worker.cli import main
from worker.features.schema import parse_schema
from worker.features.vectorize import Vectorizer
from worker.formats.base import Decoded
from worker.model.learn import fit_bundle
from worker.model.presets import preset_options
from worker.model.store.bundle import Bundle
from worker.model.store.model_store import ModelStore
from worker.records import FloatArray
from worker.replay.report import Pictures

PIXELS = [f"p{place}" for place in range(64)]
SCHEMA = (
    "".join(f'[fields.{name}]\nkind = "numeric"\nrange = [0, 16]\n' for name in PIXELS)
    + '[fields.digit]\nkind = "id"\n'
    + f"[report.image]\nfields = {PIXELS}\nwidth = 8\n"
)


def items() -> tuple[list[dict[str, Any]], FloatArray]:
    """The records, and their pixels (1797, 64) from 0 to 16."""
    pixels, digits = load_digits(return_X_y=True)
    rows = [
        {**dict(zip(PIXELS, row, strict=True)), "digit": int(digit)}
        for row, digit in zip(pixels.tolist(), digits, strict=True)
    ]
    return rows, pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted on all items and replayed over them, with latents."""
    place = tmp_path_factory.mktemp("digits")
    rows, _ = items()
    bundle = fit_bundle(parse_schema(SCHEMA), rows, preset_options("digits"), created_at="2026-01-01T00:00:00.000Z")
    store = ModelStore(place / "models")
    store.save(bundle)
    store.promote(bundle.version)
    (place / "schema.toml").write_text(SCHEMA)
    (place / "digits.jsonl").write_bytes(b"\n".join(orjson.dumps(row) for row in rows) + b"\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["replay", "digits.jsonl", "--latent"]) == 0
    return place


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return ModelStore(folder / "models").load()


def encoded(bundle: Bundle) -> tuple[Any, Any]:
    rows, _ = items()
    vectors = Vectorizer(bundle.fitted).transform(Decoded.of_rows(rows))
    return vectors.numeric, vectors.category_ids


def test_known_ranges_bring_pixels_to_0_and_1(bundle: Bundle) -> None:
    np.testing.assert_array_equal(encoded(bundle)[0], (items()[1] / 16).astype(np.float32))


def test_with_the_loss_summed_over_fields_the_preset_ends_below_an_item_error_of_035(bundle: Bundle) -> None:
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle))
    pixel_errors = ((x - answer) ** 2)[:, :64].sum(1) / 64
    mean_predicted = ((x - x.mean(0)) ** 2)[:, :64].sum(1) / 64

    assert bundle.network.architecture.hidden == (32, 8, 32)
    assert pixel_errors.mean() < 0.035
    assert mean_predicted.mean() == pytest.approx(0.074, abs=0.001)
    assert bundle.training.mean() < 0.035


def test_with_the_mean_loss_of_its_source_the_preset_does_not_learn() -> None:
    rows, _ = items()
    options = preset_options("digits", reduction="mean", epochs=10)

    report = fit_bundle(parse_schema(SCHEMA), rows, options, created_at="").report

    assert report["held_out_loss"] > report["mean_predictor_loss"]


def test_item_errors_and_their_ranking_are_those_of_plain_numpy(folder: Path, bundle: Bundle) -> None:
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle))
    errors = ((x - answer) ** 2).sum(1) / len(bundle.fields)
    scores = pq.read_table(folder / "out/replay/scores.parquet").to_pydict()

    np.testing.assert_allclose(scores["score"], errors, rtol=1e-5)
    assert np.argsort(scores["score"])[::-1][:50].tolist() == np.argsort(errors)[::-1][:50].tolist()
    above = np.flatnonzero(errors > np.quantile(errors, 0.95))
    assert np.flatnonzero(scores["alert"]).tolist() == above.tolist()
    assert len(above) == 90


def test_the_ranked_list_shows_each_item_beside_its_reconstruction(folder: Path, bundle: Bundle) -> None:
    page = (folder / "out/replay/report.html").read_text()
    first = page.partition('<article class="alert">')[2].partition("</article>")[0]
    rows, pixels = items()
    x, answer, _ = reference.forward(bundle.network, *encoded(bundle))
    strongest = int(((x - answer) ** 2).sum(1).argmax())

    assert page.count('<svg viewBox="0 0 8 8"') == 100
    assert f"<code>digit={rows[strongest]['digit']}</code>" in first
    for label, ink in (("observed", pixels[strongest] / 16), ("expected", answer[strongest, :64])):
        drawn = first.partition(f'aria-label="{label}">')[2].partition("</svg>")[0]
        shown = np.zeros(64)
        for x_at, y_at, share in re.findall(r'<rect x="(\d)" y="(\d)"[^>]*fill-opacity="([^"]+)"', drawn):
            shown[int(y_at) * 8 + int(x_at)] = float(share)
        np.testing.assert_allclose(shown, np.where(ink > 0.02, ink, 0), atol=0.07)  # shown in whole units of a pixel


def test_a_record_with_a_redacted_pixel_has_no_picture(bundle: Bundle) -> None:
    image = parse_schema(SCHEMA).image
    assert image is not None
    pictures = Pictures(bundle, image)
    rows, _ = items()

    assert [picture["label"] for picture in pictures.pair(rows[0])] == ["observed", "expected"]
    assert pictures.pair({**rows[0], "p5": "[redacted]"}) == []
    assert len(pictures.pair({**rows[0], "p5": None})) == 2


def test_latents_are_those_of_plain_numpy(folder: Path, bundle: Bundle) -> None:
    _, _, latent = reference.forward(bundle.network, *encoded(bundle))
    written = pq.read_table(folder / "out/replay/scores.parquet")["latent"].to_pylist()

    np.testing.assert_allclose(written, latent, rtol=1e-5, atol=1e-6)
    assert len(written[0]) == 8


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
def test_the_latents_are_drawn_and_the_50_strongest_alerts_marked(folder: Path) -> None:
    dom = browse(folder / "out/replay/report.html", "--dump-dom", "--window-size=1200,4000")

    drawn = dom.partition('id="chart-latent"')[2].partition("</section>")[0]
    points = [len(re.findall(r'<path class="point"', trace)) for trace in drawn.split('<g class="trace scatter')[1:]]
    assert points == [1797, 50]


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
def test_a_screenshot_shows_the_pictures(folder: Path, tmp_path: Path) -> None:
    page = (folder / "out/replay/report.html").read_text()
    style = page.partition("<style>")[2].partition("</style>")[0]
    pictures = re.findall(r'<div class="pictures">.*?</div>', page)[:12]
    dark = []
    for name, body in (("with", "".join(pictures)), ("without", re.sub("<rect[^>]*/>", "", "".join(pictures)))):
        alone = tmp_path / f"{name}.html"
        alone.write_text(f"<!doctype html><style>{style}</style><main>{body}</main>")
        image = tmp_path / f"{name}.png"
        browse(alone, f"--screenshot={image}", "--window-size=400,1400", "--blink-settings=preferredColorScheme=1")
        dark.append(dark_share(image.read_bytes()))

    assert dark[0] > dark[1] + 0.02


def dark_share(png: bytes) -> float:
    """Share of the pixels of a screenshot that are darker than half."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    channels = {2: 3, 6: 4}[png[25]]
    data, at = b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        data += png[at + 8 : at + 8 + size] if png[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + size
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(height, 1 + width * channels)
    picture = np.zeros((height, width * channels), np.int64)
    for row, line in enumerate(lines):
        picture[row] = unfiltered(line[0], line[1:].astype(np.int64), picture[row - 1] * (row > 0), channels)
    return float((picture.reshape(height, width, channels)[:, :, :3].mean(2) < 128).mean())


def unfiltered(kind: int, line: Any, above: Any, channels: int) -> Any:
    """One line of a PNG without its filter (PNG specification, section 9)."""
    if kind in {0, 2}:
        return (line + (above if kind == 2 else 0)) % 256
    values = line.copy()
    for at in range(len(line)):
        left, upper = (values[at - channels] if at >= channels else 0), above[at]
        corner = above[at - channels] if at >= channels else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + upper) // 2
        else:
            near = left + upper - corner
            guess = min((left, upper, corner), key=lambda value: abs(near - value))
        values[at] = (line[at] + guess) % 256
    return values
