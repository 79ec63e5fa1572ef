"""Counts the labels that trimming changes: `python -m loadtests.accuracy.trimming AUDIO`.

AUDIO is a folder that is searched for wav and flac files. With `--manifest CSV` (columns path and emotion), it also
counts the correct labels with and without trimming.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from service.inference.backends.select import open_backend
from service.model.store import find
from service.recognition.file import decode_clips
from service.recognition.options import Options
from service.recognition.scores import recognition
from service.settings.sources import load_settings


def main() -> None:
    """Run every clip with and without trimming, and print the numbers."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.accuracy.trimming", description="Counts the labels that trimming changes."
    )
    parser.add_argument("audio", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--manifest", type=Path)
    arguments = parser.parse_args()
    truth = {}
    if arguments.manifest:
        with arguments.manifest.open(encoding="utf-8", newline="") as file:
            truth = {Path(row["path"]).name: row["emotion"] for row in csv.DictReader(file)}
    settings = load_settings(model=arguments.model)
    stored = find(settings.model, cache=settings.cache_dir, offline=True)
    backend = open_backend(stored.directory, stored.manifest, device="cpu")
    paths = sorted(path for suffix in ("wav", "flac") for path in arguments.audio.rglob(f"*.{suffix}"))
    changed = correct_trimmed = correct_whole = with_truth = 0
    retained = total = 0.0
    for path in paths:
        labels = []
        for trim in (True, False):
            options = Options(trim="true" if trim else "false")  # type: ignore[arg-type]  # options are text
            with path.open("rb") as file:
                decoded = decode_clips(file, options, settings.max_duration, settings.max_duration)
            (output,) = backend.run(decoded.clips).clips
            answer = recognition(output, backend.info, granularity="utterance", embedding="none")
            labels.append(answer.label.en)
            if trim:
                retained += output.scored.end - output.scored.start
                total += decoded.duration
        changed += labels[0] != labels[1]
        if path.name in truth:
            with_truth += 1
            correct_trimmed += labels[0] == truth[path.name]
            correct_whole += labels[1] == truth[path.name]
    count = len(paths)
    print(f"{backend.info.id} {backend.info.revision}: {count} clips, {retained / total:.1%} of the audio remains")
    print(f"labels changed by trimming: {changed} ({changed / count:.1%})")
    if with_truth:
        print(f"labels correct: {correct_trimmed / with_truth:.1%} trimmed, {correct_whole / with_truth:.1%} whole")


if __name__ == "__main__":
    main()
