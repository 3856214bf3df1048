"""Reading and writing of videos with PyAV: frames one after the other, sound copied as it is."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from i2i.errors import JobError, RequestError
from i2i.images.convert import to_rgb
from i2i.images.format import Array, DecodedImage

INPUTS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv",
          ".ogv", ".3gp")
OUTPUTS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}     # FFmpeg's names of them.
# A file cannot make FFmpeg open another file or a server, as a playlist can.
SAFE = {"protocol_whitelist": "file", "format_whitelist": "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg"}
BT709, BT601 = 1, 5         # Matrix coefficients (ITU-T H.273); without a tag, by height as players have it.
TAGGED, HD_HEIGHT = (BT709, BT601, 6, 7, 9), 720
LIMITED_RANGE = 1
HDR = {16: "PQ", 18: "HLG"}         # Transfer characteristics (ITU-T H.273).
FRAME_DURATION = 1 << 8     # FFmpeg's flag: encoders pass durations on.
MPEG4_TICKS = 65_535        # Ticks a second that MPEG-4 part 2 can count.
END_TOLERANCE = Fraction(1, 10)     # Seconds and a frame that a whole file may end before its header says.
# Without B-frames, the order of frames is that of their times, and containers keep every duration.
QUALITY = {"libx264": {"crf": "18", "bf": "0"}, "mpeg4": {"qmin": "2", "qmax": "4"}}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: when it is shown, and for how long, in seconds."""

    image: DecodedImage
    time: Fraction
    duration: Fraction


def require_av() -> Any:
    """PyAV.  RequestError if it is not installed."""
    try:
        import av
    except ImportError:
        raise RequestError("videos need the package av: pip install 'i2i-toolkit[video]'") from None
    return av


@contextmanager
def explained(what: str) -> Iterator[None]:
    """JobError in one line for what cannot be read or written by FFmpeg or the system."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.startswith("av."):
            raise JobError(f"{what}: {getattr(error, 'strerror', None) or error}") from None
        raise


class Video:
    """A video file that is read.

    Attributes:
        size: width and height of its frames before they are turned upright.
        count: the number of frames that its header claims; 0 if it claims none.
        notes: what is not copied.
        sound: its streams of sound.
        on_sound: called with each of their packets.
        time_base: the unit of its times, in seconds.
        start: when it starts, in seconds; the times of frames are from there.
        step: seconds from one frame to the next on average.
        aspect: width of a pixel by its height.
        loop: how often it is shown; 0 is for ever.
    """

    loop = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.on_sound: Callable[[Any], object] = lambda packet: None
        with explained(f"{path} cannot be read, or is cut short"):
            self.container: Any = require_av().open(str(path), options=SAFE)
        self.stream = self.container.streams.best("video")
        if self.stream is None:
            raise JobError(f"{path} holds no video, or is cut short")
        context = self.stream.codec_context
        if context is None:
            raise JobError(f"{path} is of a codec that this build of FFmpeg does not decode")
        if context.color_trc in HDR:
            raise JobError(f"{path} is HDR ({HDR[context.color_trc]}), whose levels are not those of "
                           "images; accepted: SDR, into which FFmpeg's filter tonemap converts it")
        self.stream.thread_type = "AUTO"
        self.sound = list(self.container.streams.audio)
        others = [each.type for each in self.container.streams if each not in (self.stream, *self.sound)]
        self.notes = [f"streams that are not copied: {', '.join(others)}"] if others else []
        self.size = context.width, context.height
        self.count, self.time_base = self.stream.frames, self.stream.time_base
        self.start = Fraction(max(self.container.start_time or 0, 0), 10**6)
        self.step, self.aspect = 1 / Fraction(self.stream.guessed_rate or 25), None

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def frames(self) -> Iterator[Frame]:
        """All frames, upright and in order.  JobError if the file is damaged or ends before its time."""
        end, done = Fraction(0), 0
        try:
            for packet in self.container.demux():
                if packet.size and packet.is_corrupt:
                    raise JobError(self._cut_short(done))
                if packet.size and packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base - self.start)
                if packet.size and packet.stream in self.sound:
                    self.on_sound(packet)
                for frame in packet.decode() if packet.stream is self.stream else ():
                    yield self._upright(frame, done)
                    done += 1
        except require_av().error.FFmpegError as error:
            raise JobError(f"{self._cut_short(done)}: {error.strerror}") from None
        claimed = Fraction(self.container.duration or 0, 10**6)
        if end + END_TOLERANCE + self.step < claimed:
            raise JobError(f"{self._cut_short(done)}: it ends at {float(end):.2f} of {float(claimed):.2f} s; "
                           "accepted: a whole file, such as ffmpeg -i FILE -c copy OTHER makes of the rest")

    def _cut_short(self, done: int) -> str:
        return (f"{self.path} is damaged or cut short after {done:,}"
                + (f" of {self.count:,}" if self.count else "") + " frames")

    def _upright(self, frame: Any, number: int) -> Frame:
        unknown = frame.colorspace not in TAGGED
        matrix = (BT709 if frame.height >= HD_HEIGHT else BT601) if unknown else None
        array = frame.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
        array = np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))
        shape = self.stream.sample_aspect_ratio
        self.aspect = 1 / shape if shape and frame.rotation % 180 else shape
        pts = frame.dts if frame.pts is None else frame.pts
        time = number * self.step if pts is None else pts * frame.time_base - self.start
        duration = frame.duration * frame.time_base if frame.duration else self.step
        return Frame(DecodedImage(array), time, duration)


def best_codec() -> str:
    """The encoder of videos: H.264 where the build has x264, else MPEG-4 part 2."""
    return "libx264" if "libx264" in require_av().codecs_available else "mpeg4"


def write_video(path: Path, suffix: str, clip: Any, results: Iterable[tuple[Frame, Array]],
                codec: str) -> str:
    """Encode results, (H, W) or (H, W, C) uint8, as they come, and copy the sound of the clip.

    Args:
        suffix: one of OUTPUTS.
        clip: the `Video` or animated image whose frames were translated.
        codec: "libx264" or "mpeg4".

    Returns:
        The codec and pixel format.
    """
    early, last, stream = list[Any](), -1, None        # Sound before the first frame.
    with require_av().open(str(path), "w", format=OUTPUTS[suffix]) as out:
        def copy(packet: Any) -> None:
            shift = round(clip.start / packet.time_base)
            packet.pts = (packet.dts if packet.pts is None else packet.pts) - shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            packet.stream = sound[packet.stream]
            out.mux(packet)

        clip.on_sound = early.append
        for frame, array in results:
            if stream is None:
                stream = _add_stream(out, codec, clip, *array.shape[:2])
                sound = _add_sound(out, clip, suffix)
                for packet in early:
                    copy(packet)
                clip.on_sound = copy
            image = require_av().VideoFrame.from_ndarray(to_rgb(array), format="rgb24").reformat(
                format=stream.pix_fmt, dst_colorspace=stream.codec_context.colorspace)
            last = max(round(frame.time / stream.codec_context.time_base), last + 1)
            image.pts, image.time_base = last, stream.codec_context.time_base
            image.duration = max(round(frame.duration / image.time_base), 1)
            out.mux(stream.encode(image))
        if stream is None:
            raise JobError(f"{clip.path} holds no frames")
        out.mux(stream.encode())
    return f"{stream.codec_context.codec.canonical_name}, {stream.pix_fmt}"


def _add_stream(out: Any, codec: str, clip: Any, height: int, width: int) -> Any:
    """A video stream with the times of a clip; H.264 holds odd sizes only with color at full resolution."""
    rate = (1 / clip.step).limit_denominator(MPEG4_TICKS)
    stream = out.add_stream(codec, rate=rate, options=QUALITY[codec])
    odd = codec == "libx264" and (height % 2 or width % 2)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p" if odd else "yuv420p"
    context, ticks = stream.codec_context, clip.time_base
    if codec == "mpeg4" and ticks.denominator > MPEG4_TICKS:
        ticks = Fraction(1, MPEG4_TICKS)
    stream.time_base = context.time_base = ticks
    context.flags |= FRAME_DURATION
    if clip.aspect:
        context.sample_aspect_ratio = clip.aspect
    context.colorspace = BT709 if height >= HD_HEIGHT else BT601
    context.color_range = LIMITED_RANGE
    return stream


def _add_sound(out: Any, clip: Any, suffix: str) -> dict[Any, Any]:
    """Streams for the sound of a clip, and the header.  RequestError if such files do not hold it."""
    try:
        copies = {each: out.add_stream_from_template(each) for each in clip.sound}
        out.start_encoding()
        return copies
    except (ValueError, require_av().error.ArgumentError):
        if not clip.sound:
            raise
        names = ", ".join(each.codec_context.name for each in clip.sound)
        raise RequestError(f"{suffix} files do not hold this sound ({names}); accepted: --out "
                           "FILE.mkv") from None
