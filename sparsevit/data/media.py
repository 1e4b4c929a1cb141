"""Images, folders, videos and cameras, as frames one after another."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsevit.data.images import decoded, image_fault
from sparsevit.data.own.folders import IMAGES
from sparsevit.errors import UserError

VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".gif")

_STREAM = re.compile(r"(rtsp|rtmp|http|https)://", re.IGNORECASE)
_MOST_CAMERAS = 64
_FASTEST = 1000.0
_NAMED = 5


@dataclass(frozen=True)
class Media:
    """Something with frames.

    Attributes:
        name: what is made of it is called so, without a suffix; no two have the same.
        source: the file, the number of a camera, or the address of a stream.
        moving: it is no single image.
    """

    name: str
    source: Path | int | str
    moving: bool

    @property
    def live(self) -> bool:
        """Whether its frames come as they are taken, without an end."""
        return not isinstance(self.source, Path)

    def check(self) -> None:
        """Open it and close it again, where it is no single image.

        Raises:
            UserError: it cannot be opened.
        """
        if self.moving:
            with _silent_opencv():
                self._opened().release()

    def frames(self, tell: Callable[[str], None], most: int | None = None) -> Iterator[Any]:
        """Its frames, (H, W, 3) uint8 BGR each.

        Args:
            tell: is told of a video that ends before its time.
            most: frames at most.

        Raises:
            UserError: it cannot be opened, or has no frame.
        """
        if not self.moving:
            assert isinstance(self.source, Path)
            pixels = decoded(self.source)
            if pixels is None:
                raise UserError(f"{self.source} is not an image that can be read.", _ONE_BY_ONE)
            yield pixels
            return
        import cv2

        with _silent_opencv():
            capture = self._opened()
            try:
                said = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
                count = 0
                while most is None or count < most:
                    there, pixels = capture.read()
                    if not there:
                        break
                    count += 1
                    yield pixels
            finally:
                capture.release()
        if not count:
            raise UserError(f"{self._shown()} gives no frame.", _CHECK_VIDEO)
        if count < min(said, most or said) and not self.live:
            tell(f"{self.source} ends after {count} frames; its header says {said}")

    @property
    def rate(self) -> float | None:
        """Frames a second that a video file was taken at; None where it does not say."""
        if self.live:
            return None
        import cv2

        with _silent_opencv():
            capture = self._opened()
            try:
                said = float(capture.get(cv2.CAP_PROP_FPS))
            finally:
                capture.release()
        return said if 0 < said <= _FASTEST else None

    def _opened(self) -> Any:
        import cv2

        source = str(self.source) if isinstance(self.source, Path) else self.source
        capture = cv2.VideoCapture(source)
        if capture.isOpened():
            return capture
        capture.release()
        if isinstance(self.source, int):
            raise UserError(
                f"There is no camera {self.source}, or it cannot be opened.",
                "Check that it is plugged in, that you may read it (on Linux /dev/video"
                f"{self.source}), and that no other program uses it.",
            )
        raise UserError(f"{self._shown()} cannot be opened as a video.", _CHECK_VIDEO)

    def _shown(self) -> str:
        return f"Camera {self.source}" if isinstance(self.source, int) else str(self.source)


_ONE_BY_ONE = "Replace it, or leave it out with --skip-broken."
_CHECK_VIDEO = "Check that a player shows it; OpenCV must know its format."


def find_media(
    inputs: Sequence[str], skip_broken: bool, tell: Callable[[str], None]
) -> list[Media]:
    """What a user names: image files, folders of images, videos, cameras by number, streams.

    The header and the end of every image are looked at.

    Args:
        inputs: in this order; of a folder its images by name, not those of folders in it.
        skip_broken: leave images out that cannot be read.
        tell: is told which.

    Raises:
        UserError: something is not there or cannot be read, or nothing is left.
    """
    found: list[Media] = []
    broken: list[str] = []
    names: set[str] = set()
    for text in inputs:
        for source in _sources(text):
            moving = not isinstance(source, Path) or source.suffix.lower() in VIDEOS
            fault = None if moving or not isinstance(source, Path) else image_fault(source)
            if fault is not None:
                broken.append(f"{source} {fault}")
                continue
            one = Media(unique_name(source, names), source, moving)
            one.check()
            found.append(one)
    if broken and (not skip_broken or not found):
        more = f", and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise UserError(
            f"{_counted(len(broken))} cannot be used: {'; '.join(broken[:_NAMED])}{more}.",
            "Replace them, or leave them out with --skip-broken." if found else _CHECK_IMAGES,
        )
    for said in broken:
        tell(f"left out: {said}")
    return found


_CHECK_IMAGES = f"Give images ({', '.join(IMAGES)}), videos, or folders of images."


def _counted(count: int) -> str:
    return f"{count} image{'s' if count > 1 else ''}"


def _sources(text: str) -> list[Path | int | str]:
    if text.isascii() and text.isdigit() and not Path(text).exists():
        if int(text[:6]) >= _MOST_CAMERAS:
            raise UserError(
                f"There is no camera {text[:20]}, nor a file of this name.",
                f"Cameras are counted from 0. {_CHECK_IMAGES}",
            )
        return [int(text)]
    if _STREAM.match(text):
        return [text]
    path = Path(text).expanduser() if text[:1] == "~" and text[1:2] in ("", "/") else Path(text)
    try:
        if path.is_dir():
            inside: list[Path | int | str] = [
                one
                for one in sorted(path.iterdir())
                if one.suffix.lower() in IMAGES and not one.name.startswith(".")
            ]
            if not inside:
                raise UserError(
                    f"The folder {path} has no images.",
                    "Give the folder that they are in: folders in folders are not searched.",
                )
            return inside
        there = path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{text[:200]} cannot be read: {reason}.", _CHECK_IMAGES) from error
    if not there:
        raise UserError(f"There is no {path}.", f"Check the path. {_CHECK_IMAGES}")
    if path.suffix.lower() in VIDEOS and not path.is_file():
        raise UserError(f"{path} is not a regular file.", _CHECK_IMAGES)
    return [path]


def unique_name(source: Path | int | str, names: set[str]) -> str:
    """What is made of a file, a camera or a stream is called so: not as any of ``names``, to which
    it is added."""
    if isinstance(source, Path):
        wanted = source.stem
        if wanted in names:
            wanted = f"{source.stem}-{source.suffix[1:].lower()}"
    else:
        wanted = f"camera{source}" if isinstance(source, int) else "stream"
    name, number = wanted, 1
    while name in names:
        number += 1
        name = f"{wanted}-{number}"
    names.add(name)
    return name


@contextmanager
def _silent_opencv() -> Iterator[None]:
    """OpenCV and FFmpeg tell on the terminal what they cannot read; within this, we alone do."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    before = cv2.getLogLevel()
    cv2.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setLogLevel(before)


class VideoFile:
    """A video that is written frame by frame, and has its name once it is whole.

    Used as a context. What was written counts where the block is interrupted, too; where it fails,
    nothing is left.

    Args:
        path: an ``.mp4``, in a folder that is there.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self._rate = path, rate
        self._writer: Any = None
        self._folder: Any = None

    def __enter__(self) -> VideoFile:
        # OpenCV tells the format by the suffix, so it cannot be a temporary name of ours
        self._folder = tempfile.TemporaryDirectory(
            prefix=f".{self.path.stem}-", dir=self.path.parent
        )
        return self

    def write(self, pixels: Any) -> None:
        """Add a frame.

        Args:
            pixels: (H, W, 3) uint8 RGB; all frames have the size of the first.

        Raises:
            UserError: no video can be written here.
        """
        import cv2
        import numpy as np

        height, width = pixels.shape[:2]
        # codecs halve the colours: sides are even
        frame = np.ascontiguousarray(pixels[: height // 2 * 2, : width // 2 * 2, ::-1])
        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._part()), code, self._rate, size)
            if not self._writer.isOpened():
                raise UserError(
                    f"{self.path} cannot be written: OpenCV has no encoder for it.",
                    "Give images in place of the video, or install opencv-python-headless.",
                )
        self._writer.write(frame)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is not None:
            self._writer.release()
            if kind is None or not issubclass(kind, Exception):
                os.replace(self._part(), self.path)
        self._folder.cleanup()

    def _part(self) -> Path:
        return Path(self._folder.name) / self.path.name
