"""Videos and animated images through the command line: times, sizes, sound, loops, faults."""

from __future__ import annotations

import os
import weakref
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from i2i import load
from i2i.images.format import DecodedImage
from i2i.inference import video
from i2i.inference.clips import translate_clip
from tests.conftest import Run, drawing

UNEVEN = [0, 40, 100, 130, 500, 520, 600]       # Milliseconds.


def pictures(count: int, height: int = 32, width: int = 32) -> list[np.ndarray]:
    """A picture that moves to the right."""
    picture = np.pad(drawing(1)[:, 32:], ((0, 32), (0, 64), (0, 0)), "wrap")
    return [np.ascontiguousarray(np.roll(picture, 2 * i, 1)[:height, :width]) for i in range(count)]


def film(path: Path, frames: list[np.ndarray], *, codec: str = "libx264", pix_fmt: str = "yuv420p", sound: str = "", times: list[int] | None = None,
         rotation: int = 0, **options: str) -> Path:
    """A video of 24 frames a second, or with frames at the given milliseconds."""
    with av.open(str(path), "w", options=options) as out:
        stream: Any = out.add_stream(codec, rate=24, options={"bf": "0", "crf": "5"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pix_fmt
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        voice: Any = out.add_stream(sound, rate=44100, layout="mono") if sound else None
        for i, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times:
                image.pts, image.time_base = times[i], Fraction(1, 1000)
            out.mux(stream.encode(image))
            if voice:
                tone = (8000 * np.sin(np.arange(1837) / 16)).astype(np.int16)[None]
                samples = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                samples.sample_rate, samples.pts = 44100, 1837 * i
                out.mux(voice.encode(samples))
        out.mux(stream.encode())
        if voice:
            out.mux(voice.encode())
    return path


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """Seconds and pixels of each frame, turned as players turn it."""
    with av.open(str(path)) as container:
        return [(float(frame.time), np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))) for frame in container.decode(video=0)]


def sound_of(path: Path) -> list[tuple[float, bytes]]:
    """Seconds and bytes of each packet of sound."""
    with av.open(str(path)) as container:
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def animation(path: Path) -> list[tuple[float, np.ndarray]]:
    """Milliseconds and pixels of each frame of an animated image."""
    image, frames = Image.open(path), []
    for i in range(image.n_frames):
        image.seek(i)
        image.load()
        frames.append((image.info["duration"], np.asarray(image.convert("RGBA"))))
    return frames


def test_a_video_keeps_its_times_size_and_sound(trained: Path, i2i: Run, tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.mp4", pictures(7, 40, 48), sound="aac", times=UNEVEN)
    result = i2i("translate", trained, clip, "--out", "new/styled.mp4", "--device", "cpu", "--batch", 3)
    assert result.code == 0, result.err
    assert "7 frames translated -> new/styled.mp4  (h264, yuv420p, " in result.out
    made, model = frames_of(tmp_path / "new" / "styled.mp4"), load(trained, device="cpu")
    before = frames_of(clip)
    assert [time for time, _ in made] == [time for time, _ in before] == [time / 1000 for time in UNEVEN]
    for (_, frame), (_, original) in zip(made, before, strict=True):
        assert np.abs(frame.astype(float) - model.translate(original)).mean() < 6       # H.264 at half the resolution of color.
    assert sound_of(tmp_path / "new" / "styled.mp4") == sound_of(clip)
    with av.open(str(tmp_path / "new" / "styled.mp4")) as after, av.open(str(clip)) as whole:
        assert after.duration == pytest.approx(whole.duration, abs=50_000)


@pytest.mark.parametrize(("name", "codec", "sound", "out"), [("a.avi", "mpeg4", "mp3", "b.mp4"), ("a.mkv", "libx264", "flac", "b.mkv"), ("a.mov", "libx264", "pcm_s16le", "b.mov"),
                                                             ("a.webm", "libvpx-vp9", "", "b.m4v"), ("a.ts", "libx264", "mp2", "b.mkv")])
def test_other_containers_are_read(trained: Path, i2i: Run, tmp_path: Path, name: str, codec: str, sound: str, out: str) -> None:
    clip = film(tmp_path / name, pictures(6), codec=codec, sound=sound)
    assert i2i("translate", trained, clip, "--out", out, "--device", "cpu").code == 0
    made, before = frames_of(tmp_path / out), frames_of(clip)
    assert np.diff([time for time, _ in made]) == pytest.approx(np.diff([time for time, _ in before]), abs=0.0011)
    if sound:
        assert b"".join(data for _, data in sound_of(tmp_path / out)) == b"".join(data for _, data in sound_of(clip))
        assert made[0][0] - sound_of(tmp_path / out)[0][0] == pytest.approx(before[0][0] - sound_of(clip)[0][0], abs=0.0011)


def test_odd_sizes_stay(trained: Path, i2i: Run, tmp_path: Path) -> None:
    clip = film(tmp_path / "odd.mkv", pictures(3, 33, 17), codec="ffv1", pix_fmt="yuv420p")
    result = i2i("translate", trained, clip, "--out", "styled.mp4", "--device", "cpu")
    assert "(h264, yuv444p, " in result.out
    assert frames_of(tmp_path / "styled.mp4")[0][1].shape == (33, 17, 3)


def test_a_turned_video_is_upright(trained: Path, i2i: Run, tmp_path: Path) -> None:
    clip = film(tmp_path / "turned.mp4", pictures(3, 32, 48), rotation=90)
    assert i2i("translate", trained, clip, "--out", "styled.mp4", "--device", "cpu").code == 0
    with av.open(str(tmp_path / "styled.mp4")) as made:
        stream: Any = made.streams.video[0]
        assert (stream.height, stream.width) == (48, 32)
    expected = load(trained, device="cpu").translate(np.ascontiguousarray(frames_of(clip)[1][1]))
    assert np.abs(frames_of(tmp_path / "styled.mp4")[1][1].astype(float) - expected).mean() < 6


def test_without_x264_it_is_mpeg4(tmp_path: Path) -> None:
    clip = video.Video(film(tmp_path / "a.mp4", pictures(4), times=UNEVEN[:4]))
    results = [(frame, frame.image.array[:31, :17]) for frame in clip.frames()]
    assert video.write_video(tmp_path / "b.mp4", ".mp4", clip, results, "mpeg4") == "mpeg4, yuv420p"
    made = frames_of(tmp_path / "b.mp4")
    assert [time for time, _ in made] == pytest.approx([time / 1000 for time in UNEVEN[:4]], abs=1e-4)
    assert made[0][1].shape == (31, 17, 3)


def test_flicker_is_the_change_beyond_that_of_the_input(trained: Path, i2i: Run, tmp_path: Path) -> None:
    still, moving = [pictures(1)[0]] * 3, pictures(3)
    model = load(trained, device="cpu")
    for name, frames in (("still.png", still), ("moving.png", moving)):
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=[10, 20, 30])
    assert "moving.png" in i2i("translate", trained, "moving.png", "--out", "out", "--device", "cpu").out
    result = i2i("translate", trained, "moving.png", "--out", "out", "--flicker", "--device", "cpu")
    before, after = (np.mean([np.abs(np.subtract(one, two, dtype=float)).mean() for one, two in zip(images[1:], images, strict=False)])
                     for images in (moving, [model.translate(frame) for frame in moving]))
    assert f"flicker {after - before:+.2f} levels: results change by {after:.2f} of 255 from frame to frame, inputs by {before:.2f}" in result.out
    film(tmp_path / "still.mkv", still, codec="ffv1", pix_fmt="bgr0")
    assert "flicker +0.00 levels" in i2i("translate", trained, "still.mkv", "--out", "x.mkv", "--flicker", "--device", "cpu").out


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("repeats", [None, 0, 3])
def test_an_animated_image_keeps_durations_and_loop(trained: Path, i2i: Run, tmp_path: Path, suffix: str, repeats: int | None) -> None:
    if repeats is None and suffix != "gif":
        repeats = 1
    images, durations = [Image.fromarray(frame) for frame in pictures(4, 33, 32)], [100, 50, 200, 70]
    images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], duration=durations, lossless=True, **({} if repeats is None else {"loop": repeats}))
    assert i2i("translate", trained, f"a.{suffix}", "--out", "out", "--device", "cpu").code == 0
    made, model = animation(tmp_path / "out" / f"a.{suffix}"), load(trained, device="cpu")
    assert [duration for duration, _ in made] == durations
    assert Image.open(tmp_path / "out" / f"a.{suffix}").info.get("loop") == repeats
    for (_, frame), (_, original) in zip(made, animation(tmp_path / f"a.{suffix}"), strict=True):
        difference = np.abs(frame[..., :3].astype(int) - model.translate(np.ascontiguousarray(original[..., :3])))
        assert difference.max() <= 1 if suffix != "gif" else difference.mean() < 3       # A palette of 256 colors.


def test_animations_and_videos_become_one_another(trained: Path, i2i: Run, tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in pictures(3)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[40, 120, 40], loop=3)
    assert i2i("translate", trained, "a.gif", "--out", "a.mp4", "--device", "cpu").code == 0
    assert [time for time, _ in frames_of(tmp_path / "a.mp4")] == [0, 0.04, 0.16]
    assert i2i("translate", trained, "a.gif", "--out", "a.webp", "--device", "cpu").code == 0
    assert Image.open(tmp_path / "a.webp").info["loop"] == 4        # WebP counts how often it is shown, GIF how often again.
    assert i2i("translate", trained, "a.mp4", "--out", "b.gif", "--device", "cpu").code == 0
    assert sum(duration for duration, _ in animation(tmp_path / "b.gif")) == 200        # Equal frames become one.
    result = i2i("translate", trained, "a.gif", "--out", "first", "--format", "png", "--device", "cpu")
    assert "only the first frame is used" in result.err
    assert os.listdir(tmp_path / "first") == ["a.png"]


def test_chains_directions_and_seeds_work_with_videos(trained: Path, i2i: Run, tmp_path: Path) -> None:
    images = [Image.fromarray(frame) for frame in [*pictures(2), pictures(1)[0]]]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=40, lossless=True)
    for words in (("--chain", "lorelei-hair:ba", "--batch", 2), ("--direction", "ba"), ("--seed", 3)):
        result = i2i("translate", "lorelei-hair" if "ba" in words else trained, "a.webp", "--out", "b.webp", "--device", "cpu", *words)
        assert result.code == 0, result.err
        made = [frame for _, frame in animation(tmp_path / "b.webp")]
        assert np.array_equal(made[0], made[2])     # The same frame, with the same noise.
        assert not np.array_equal(made[0], made[1])


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[:int(path.stat().st_size * share)])
    return path


def gif(path: Path) -> Path:
    images = [Image.fromarray(frame) for frame in pictures(4)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    return path


def without_frames(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("aac", rate=44100, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts = 44100, 0
        out.mux(stream.encode(samples))
        out.mux(stream.encode())
    return path


def unknown_codec(path: Path) -> Path:
    film(path, pictures(2))
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    return path


def playlist(path: Path) -> Path:
    path.write_text("#EXTM3U\n#EXTINF:10,\nfilm.mp4\n")
    return path


FAULTS: dict[str, tuple[Any, str, int]] = {
    "cut.mp4": (lambda path: cut(film(path, pictures(24), movflags="faststart"), 0.7), "of 24 frames", 1),
    "header.mp4": (lambda path: cut(film(path, pictures(24)), 0.7), "cut short", 1),
    "cut.mkv": (lambda path: cut(film(path, pictures(24)), 0.5), "of 1.00 s; accepted: a whole file", 1),
    "cut.avi": (lambda path: cut(film(path, pictures(24), codec="mpeg4"), 0.6), "cut short", 1),
    "cut.gif": (lambda path: cut(gif(path), 0.97), "of 4 frames", 1), "half.gif": (lambda path: cut(gif(path), 0.5), "of 2 frames", 1), "start.gif": (lambda path: cut(gif(path), 0.05), "cannot be read", 1),
    "sound.mp4": (without_frames, "holds no video", 1), "odd.mp4": (unknown_codec, "codec", 1), "empty.mp4": (Path.touch, "cannot be read", 1),
    "list.mp4": (playlist, "cannot be read", 1), "absent.mp4": (lambda path: path, "does not exist", 2)}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_read_whole_is_one_line_and_leaves_nothing(trained: Path, i2i: Run, tmp_path: Path, name: str) -> None:
    make, words, code = FAULTS[name]
    (tmp_path / "bad").mkdir()
    make(tmp_path / "bad" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.mkv").write_text("mine")
    result = i2i("translate", trained, f"bad/{name}", "--out", "out/old.mkv", "--device", "cpu")
    assert result.code == code
    assert words in result.line
    assert f"bad/{name}" in result.line
    assert os.listdir(tmp_path / "out") == ["old.mkv"]
    assert (tmp_path / "out" / "old.mkv").read_text() == "mine"


@pytest.mark.parametrize(("words", "message"), [
    (("--out", "a.mp4"), "overwrite"), (("--out", "."), "overwrite"), (("--out", "b.mp4", "--half", "left"), "--half"), (("--out", "b.mp4", "--format", "png"), "--format"),
    (("--out", "b.mp4", "--alpha", "carry"), "hold no alpha"), (("--out", "b.mp4", "--alpha", "keep"), "carry"), (("--out", "a.mp4/b.mp4"), "cannot be written"), (("--out", "b.mp4", "--direction", "ba"), "direction ba")])
def test_requests_that_make_no_sense_are_refused(trained: Path, i2i: Run, tmp_path: Path, words: tuple[object, ...], message: str) -> None:
    film(tmp_path / "a.mp4", pictures(2))
    result = i2i("translate", trained, "a.mp4", "--device", "cpu", *words)
    assert result.code == 2
    assert message in result.line
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_sound_that_a_container_does_not_hold_is_said(trained: Path, i2i: Run, tmp_path: Path) -> None:
    film(tmp_path / "a.mkv", pictures(3), sound="flac")
    assert i2i("translate", trained, "a.mkv", "--out", "b.mov", "--device", "cpu").line == "error: .mov files do not hold this sound (flac); accepted: --out FILE.mkv"
    film(tmp_path / "a.webm", pictures(3), codec="libvpx-vp9")
    assert ".webm files are not written" in i2i("translate", trained, "a.webm", "--out", "styled", "--device", "cpu").line
    result = i2i("translate", trained, "a.mkv", "--out", "b.mp4", "--max-pixels", 100, "--device", "cpu")
    assert (result.code, "32 x 32" in result.line) == (1, True)
    assert "flicker is for" in i2i("translate", trained, tmp_path, "--out", "x", "--flicker", "--device", "cpu").line


def test_frames_are_streamed(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more frames are alive than two batches, and the one before for flicker."""
    film(tmp_path / "a.mkv", pictures(40), codec="ffv1", pix_fmt="bgr0")
    images: weakref.WeakSet[DecodedImage] = weakref.WeakSet()
    alive: list[int] = []

    def made(array: np.ndarray) -> DecodedImage:
        image = DecodedImage(array)
        images.add(image)
        return image

    def count(done: int, total: int) -> None:
        alive.append(len(images))

    monkeypatch.setattr(video, "DecodedImage", made)
    report = translate_clip(load(trained, device="cpu"), str(tmp_path / "a.mkv"), tmp_path / "b.mp4", batch_size=4, flicker=True, progress=count)
    assert report.frames == len(alive) == 40
    assert 4 <= max(alive) <= 2 * 4 + 1


def test_an_interrupted_job_leaves_nothing(trained: Path, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", pictures(6))

    def interrupt(done: int, total: int) -> None:
        assert total == 6
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        translate_clip(load(trained, device="cpu"), str(tmp_path / "a.mp4"), tmp_path / "b.mp4", progress=interrupt)
    assert os.listdir(tmp_path) == ["a.mp4"]
