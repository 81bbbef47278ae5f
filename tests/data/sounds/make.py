"""Makes the sounds of the tests: held-out ones of the tiny family's generator, and one of them in every format.

Needs numpy, and Debian's lame, flac, vorbis-tools and opus-tools.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2] / "models/tiny"))

from trainer import sounds  # noqa: E402

SEED = 20261123
WANTED = {"tone": 4, "vowels": 1}  # of each kind, the first short ones
SHORT = 1.3  # seconds
ENCODERS = {
    "tone-1.mp3": ("lame", "--quiet", "-b", "48", "{wav}", "{out}"),
    "tone-1.flac": ("flac", "--silent", "--force", "--no-padding", "{wav}", "-o", "{out}"),
    "tone-1.ogg": ("oggenc", "--quiet", "{wav}", "-o", "{out}"),
    **{f"tone-1.{kind}": ("ffmpeg", "-y", "-loglevel", "error", "-bitexact", "-i", "{wav}", "-map_metadata", "-1", *codec, "-flags", "+bitexact", "{out}") for kind, codec in {
        "m4a": ("-c:a", "aac", "-b:a", "48k"),
        "alac.m4a": ("-c:a", "alac"),
        "webm": ("-c:a", "libopus", "-b:a", "24k"),
        "mp4": ("-c:a", "libopus", "-b:a", "24k"),
        "adpcm.wav": ("-c:a", "adpcm_ima_wav"),
        "aiff": (),
        "caf": (),
    }.items()},
    "tone-1.opus": ("opusenc", "--quiet", "--bitrate", "24", "{wav}", "{out}"),
}


def main() -> None:
    rng, left, index = random.Random(SEED), dict(WANTED), {}
    while any(left.values()):
        sound = sounds.sample(rng, True)
        if not left.get(sound.kind) or len(sound.samples) > SHORT * sounds.RATE:
            continue
        name = f"{sound.kind}-{WANTED[sound.kind] - left[sound.kind] + 1}"
        left[sound.kind] -= 1
        (HERE / f"{name}.wav").write_bytes(sounds.wav(sound.samples))
        index[name] = {"question": sound.question, "answer": sound.answer}
    (HERE / "index.json").write_text(json.dumps(dict(sorted(index.items())), indent=1, ensure_ascii=False) + "\n")
    for name, command in ENCODERS.items():
        subprocess.run([part.format(wav=HERE / "tone-1.wav", out=HERE / name) for part in command], check=True)


if __name__ == "__main__":
    main()
