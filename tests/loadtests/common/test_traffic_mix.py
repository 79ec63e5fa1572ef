import io
from collections import Counter

import soundfile

from loadtests.common.traffic_mix import TrafficMix


def test_the_mix_is_varied_and_repeatable() -> None:
    mix, again = TrafficMix(1), TrafficMix(1)
    requests = [mix.draw() for _ in range(200)]
    assert requests == [again.draw() for _ in range(200)]
    kinds = Counter(request.kind for request in requests)
    assert kinds.keys() == {"utterance", "embedding", "frame", "windows"}
    assert kinds["utterance"] > 100
    assert {request.content_type for request in requests} == {"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"}
    assert requests != [TrafficMix(2).draw() for _ in range(200)]


def test_bodies_are_audio_of_their_type() -> None:
    mix = TrafficMix(0)
    bodies = {request.body: request.content_type for request in (mix.draw() for _ in range(300))}
    formats = {"audio/wav": "WAV", "audio/flac": "FLAC", "audio/ogg": "OGG", "audio/mpeg": "MP3"}
    assert len(bodies) == 12
    for body, content_type in bodies.items():
        assert soundfile.info(io.BytesIO(body)).format == formats[content_type]
