"""Uploads, their answers and the downloads of a result."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from service.data import EXAMPLES
from tests.audio_samples import encode, speech
from tests.page.conftest import OpenPage
from tests.preprocess.containers import Track, mux


def upload(page: Page, *files: Path) -> None:
    page.set_input_files("#files", files)


def download(page: Page, button: str) -> tuple[str, bytes]:
    """Press a button; return name and content of the downloaded file."""
    with page.expect_download() as started:
        page.get_by_role("button", name=button).click()
    return started.value.suggested_filename, started.value.path().read_bytes()


def test_upload_and_downloads(page: Page) -> None:
    upload(page, EXAMPLES / "angry.flac")
    expect(page.locator("#emotion-en")).to_have_text("angry")
    expect(page.locator("#emotion-zh")).to_have_text("生气")
    expect(page.locator("#announcement")).to_contain_text("angry.flac: angry, ")
    expect(page.locator("#details")).to_contain_text("fp32 on cpu (onnx)")
    page.locator("#player[data-ready]").wait_for()

    name, content = download(page, "result.json")
    answer = json.loads(content)
    assert name == "angry.result.json"
    assert answer["label"] == "angry"
    expect(page.locator("#result-request")).to_contain_text(answer["id"])

    name, content = download(page, "embedding.npy")
    assert name == "angry.embedding.npy"
    embedding = np.load(io.BytesIO(content))
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, np.array(answer["embedding"], np.float32))

    name, content = download(page, "frames.csv")
    assert name == "angry.frames.csv"
    header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig")))
    assert header == ["start", "end", *answer["frames"]["labels"]]
    assert len(rows) == len(answer["frames"]["scores"])
    np.testing.assert_allclose([[float(value) for value in row[2:]] for row in rows], answer["frames"]["scores"])
    frames = answer["frames"]
    assert float(rows[1][0]) == pytest.approx(frames["start"] + frames["hop"])
    assert float(rows[1][1]) == pytest.approx(frames["start"] + frames["hop"] + frames["window"])

    name, content = download(page, "chart.png")
    assert name == "angry.chart.png"
    assert content.startswith(b"\x89PNG\r\n")
    assert int.from_bytes(content[16:20], "big") == 2400


def test_frame_embeddings_are_a_matrix(page: Page) -> None:
    page.get_by_label("Embedding").select_option("One for each frame")
    page.get_by_role("radio", name="Whole clip").check()
    upload(page, EXAMPLES / "happy.wav")
    expect(page.locator("#emotion-en")).to_have_text("happy")
    expect(page.locator("#timeline-hint")).to_be_visible()
    expect(page.get_by_role("button", name="frames.csv")).to_be_disabled()
    rows = np.load(io.BytesIO(download(page, "embedding.npy")[1]))
    answered = json.loads(download(page, "result.json")[1])["embedding"]
    assert rows.shape == tuple(answered["shape"])
    assert rows.shape[1] == 160
    np.testing.assert_array_equal(rows.ravel(), np.frombuffer(base64.b64decode(answered["data"]), "<f4"))


def test_channels_and_labels(page: Page, tmp_path: Path) -> None:
    (tmp_path / "call.wav").write_bytes(encode("wav-s16", speech(channels=2, seconds=1.0), 16_000))
    page.get_by_label("Channels").select_option("Each separately")
    page.get_by_label("Labels in the answer").select_option("Chinese")
    upload(page, tmp_path / "call.wav")
    expect(page.get_by_role("radio", name="Channel 0")).to_be_checked()
    page.get_by_role("radio", name="Channel 1").check()
    expect(page.locator("#scores li")).to_have_count(9)
    _, content = download(page, "result.json")
    second = json.loads(content)["channels"][1]
    best = max(second["scores"], key=lambda row: row["score"])
    assert best["label"] in page.locator("#emotion-zh").inner_text()
    expect(page.locator("#emotion-score")).to_have_text(f"{100 * best['score']:.1f} %")

    page.get_by_label("Channels").select_option("One channel")
    page.get_by_label("Number of the channel, from 0").fill("1")
    page.get_by_role("button", name="Compute again").click()
    expect(page.locator("#channel-choice")).to_be_hidden()
    expect(page.locator("#emotion-score")).to_have_text(f"{100 * best['score']:.1f} %")


def test_code_snippets_give_the_same_answer(page: Page, tmp_path: Path) -> None:
    name = 'it\'s, a "test" $HOME;.flac'
    (tmp_path / name).write_bytes((EXAMPLES / "sad.flac").read_bytes())
    page.get_by_text("Trim silence at both ends").click()
    upload(page, tmp_path / name)
    expect(page.locator("#emotion-en")).to_have_text("sad")
    _, content = download(page, "result.json")
    shown = json.loads(content)

    line = page.locator("#code").inner_text()
    run = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert {**json.loads(run.stdout), "id": ""} == {**shown, "id": ""}

    page.get_by_role("radio", name="Python").check()
    lines = page.locator("#code").inner_text().replace("print(", "import json; print(json.dumps(").strip() + ")"
    run = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert {**json.loads(run.stdout), "id": ""} == {**shown, "id": ""}


def test_several_files_make_a_table(page: Page, tmp_path: Path) -> None:
    names = ["sad.flac", "angry.flac", "neutral.flac"]
    (tmp_path / "=cmd.wav").write_bytes((EXAMPLES / "happy.wav").read_bytes())
    upload(page, *(EXAMPLES / name for name in names), tmp_path / "=cmd.wav")
    expect(page.locator("#table-summary")).to_have_text("4 of 4 done")
    files = page.locator("#file-rows th")
    expect(files).to_have_text([*names, "=cmd.wav"])
    heading = page.get_by_role("columnheader", name="Emotion")
    heading.get_by_role("button").click()
    expect(heading).to_have_attribute("aria-sort", "ascending")
    expect(files).to_have_text(["angry.flac", "=cmd.wav", "neutral.flac", "sad.flac"])
    heading.get_by_role("button").click()
    expect(files).to_have_text(["sad.flac", "neutral.flac", "=cmd.wav", "angry.flac"])
    page.get_by_role("button", name="Score").click()
    expect(files).to_have_text(["=cmd.wav", "sad.flac", "angry.flac", "neutral.flac"])
    shown = [float(text.rstrip(" %")) for text in page.locator("#file-rows tr td:nth-child(3)").all_inner_texts()]
    assert shown == sorted(shown)

    page.get_by_role("button", name="angry.flac", exact=True).click()
    expect(page.locator("#emotion-en")).to_have_text("angry")

    name, content = download(page, "Table as CSV")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert name == "emotions.csv"
    assert [row["file"] for row in rows] == [*names, "'=cmd.wav"]  # nothing that a spreadsheet would run
    assert [row["label"] for row in rows] == ["sad", "angry", "neutral", "happy"]
    assert float(rows[0]["sad"]) == pytest.approx(float(rows[0]["score"]))

    page.get_by_role("button", name="Remove sad.flac").click()
    expect(files).to_have_count(3)
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#table-part")).to_be_hidden()
    expect(page.locator("#result")).to_be_hidden()


def test_file_that_only_the_service_can_decode(page: Page) -> None:
    upload(page, Path(__file__).parents[1] / "data" / "03a02Nc.amr")
    expect(page.locator("#emotion-en")).not_to_be_empty()
    expect(page.locator("#player-notice")).to_contain_text("cannot decode")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_disabled()
    page.locator("#tracks").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#position-scores-heading")).to_have_text("At 0.10 s")


def test_a_file_with_a_gap_is_played_by_its_clock(page: Page, tmp_path: Path) -> None:
    """The browser decodes it without the gap, so that a drawn waveform would not fit the answer's times."""
    path = tmp_path / "gap.webm"
    path.write_bytes(mux("webm", Track(np.tile(speech(48_000), (1, 2)), 48_000, "libopus", ((1.5, 3.0),))))
    upload(page, path)
    expect(page.locator("#player-notice")).to_contain_text("leaves out parts of the file")
    expect(page.locator("#clock")).to_contain_text("5.9")
    play = page.get_by_role("button", name="Play", exact=True)
    expect(play).to_be_enabled()
    play.click()
    page.get_by_role("button", name="Pause", exact=True).click()


def test_files_can_be_dropped_anywhere(open_page: OpenPage) -> None:
    page = open_page()
    content = list((EXAMPLES / "neutral.flac").read_bytes())
    data = page.evaluate_handle(
        """(bytes) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.flac'));
            return transfer;
        }""",
        content,
    )
    page.dispatch_event("footer", "dragenter", {"dataTransfer": data})
    expect(page.locator("body")).to_have_class("empty dragging")
    page.dispatch_event("footer", "drop", {"dataTransfer": data})
    expect(page.locator("#result-name")).to_have_text("dropped.flac")
    expect(page.locator("#emotion-en")).to_have_text("neutral")
