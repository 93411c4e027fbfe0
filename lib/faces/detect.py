"""Finding faces and their 68 landmarks, in pictures and over a video.

The detector is a small interface, so that another can be put in its place: anything that maps an image to a list of
`Face`. Here it is dlib's, as `lib.data.people` has it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Literal

import cv2
import numpy as np

from lib.data import people
from lib.errors import UserError
from lib.faces.stabilise import BOXES, Box, averaged, smooth
from lib.vision.shots import CutFinder

SMALLEST = 40  # pixels of the smallest face that is looked for
SEARCH = 480  # longer sides are reduced to this before searching; landmarks are found at full size


@dataclasses.dataclass(frozen=True)
class Face:
    """One face: its box (left, top, right, bottom), 68 landmarks ``(68, 2)``, both in pixels, and the score."""

    box: Box
    landmarks: np.ndarray
    score: float

    def inside(self, size: tuple[int, int]) -> float:
        """Share of the landmarks that lie in a picture of ``size`` (width, height); below `WHOLE` it is partial."""
        return float(((self.landmarks >= 0) & (self.landmarks <= size)).all(1).mean())

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


WHOLE = 0.9
"""Least share of landmarks inside the picture for a face that can be swapped."""
Detector = Callable[[np.ndarray], list[Face]]
"""From an image, uint8 ``(H, W, 3)``, to its faces, the largest first."""


class DlibDetector:
    """dlib's frontal-face detector and 68-point predictor.

    Args:
        boxes: how many perturbed boxes the landmarks are averaged over (1: as dlib gives them).
        threshold: lowest score of a face; 0 is dlib's own.

    Calling it with an image, uint8 ``(H, W, 3)``, gives its faces, the largest first.
    """

    def __init__(self, boxes: int = BOXES, threshold: float = 0.0) -> None:
        self.boxes, self.threshold = boxes, threshold
        self.detector, _ = people.dlib_models()

    def __call__(self, image: np.ndarray) -> list[Face]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise UserError(f"faces are looked for in uint8 images (H, W, 3), not {image.dtype} of {image.shape}")
        image = np.ascontiguousarray(image)
        # the detector's window is 80 pixels: small pictures are enlarged, large ones reduced
        shortest, longest = sorted(image.shape[:2])
        scale = 80 / SMALLEST if shortest < 200 else min(1.0, SEARCH / longest)
        size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
        small = (
            image
            if scale == 1
            else cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        )
        found, scores, _ = self.detector.run(small, 0, self.threshold)

        faces = []
        for rectangle, score in zip(found, scores, strict=True):
            edges = (rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)
            box = tuple(edge / scale for edge in edges)
            points = averaged(functools.partial(_predict, image), box, self.boxes)
            faces.append(Face(box, points, float(score)))
        return sorted(faces, key=lambda face: -face.area)


def crop_landmarks(image: np.ndarray, boxes: int = BOXES) -> np.ndarray:
    """Landmarks ``(68, 2)`` of the face in an aligned crop, uint8 ``(N, N, 3)``: where it is need not be searched."""
    from lib.faces.align import template

    image = np.ascontiguousarray(image)
    (left, top), (right, bottom) = template().min(0) * len(image), template().max(0) * len(image)
    return averaged(functools.partial(_predict, image), (left, top, right, bottom), boxes)


def _predict(image: np.ndarray, box: Box) -> np.ndarray:
    """dlib's landmarks ``(68, 2)`` of the face in a box, from pixel centres."""
    return people.predict(image, box) + 0.5


# ------------------------------------------------------------------------------------------------------ over a video

Choice = Literal["only", "largest", "left", "right"]
CHOICES: tuple[Choice, ...] = ("only", "largest", "left", "right")


def choose(faces: list[Face], choice: Choice = "only", previous: Box | None = None) -> Face | None:
    """The face to swap; None where there is none.

    Args:
        faces: of one frame.
        choice: among several faces ``"largest"``, ``"left"`` or ``"right"`` (most in the picture); ``"only"`` refuses.
        previous: box in the frame before: the face that overlaps it by more than a third goes on being followed.

    Raises:
        UserError: several faces and ``"only"``, or an unknown choice.
    """
    if choice not in CHOICES:
        raise UserError(f"the face is chosen by one of {', '.join(CHOICES)}, not {choice!r}")
    if not faces:
        return None
    if len(faces) == 1:
        return faces[0]
    if choice == "only":
        raise UserError(f"{len(faces)} faces are in the picture; choose one: largest, left or right (--face)")
    if previous is not None:
        overlap, best = max(((_overlap(face.box, previous), -k) for k, face in enumerate(faces)))
        if overlap > 1 / 3:
            return faces[-best]
    if choice == "largest":
        return max(faces, key=lambda face: face.area)
    return (min if choice == "left" else max)(faces, key=lambda face: face.box[0] + face.box[2])


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


SAME = 0.94
"""Least cosine of two embeddings of one person. Of 32 photographs of 16 people of the London set pairs of two people
reach 0.938, those of one person begin at 0.953; frames of eight GRID speakers 0.930 and 0.981."""
SAME_PLACE = 0.92
"""The same for a face that appears where the person was seen last, in the same shot."""
_FOLLOWED = 1 / 3  # least overlap with the box in the frame before
_REFRESH = 25  # frames after which another view of the person is kept
_VIEWS = 16  # that are kept, at most

Recogniser = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From an image and landmarks ``(68, 2)`` in it to an embedding of unit length."""


@dataclasses.dataclass(frozen=True)
class Track:
    """The face in every frame of a video.

    Attributes:
        landmarks: ``(T, 68, 2)`` in pixels, stabilised; NaN where no (whole) face of the person was found.
        raw: the same before the temporal filter.
        missing, partial: numbers of frames without the person's face, and with one that the picture cuts off.
        others: of the missing, those in which somebody else's face was found.
        cuts: frames that begin a new shot; the filter does not look across them.
    """

    landmarks: np.ndarray
    raw: np.ndarray
    missing: int
    partial: int
    others: int = 0
    cuts: tuple[int, ...] = ()

    @property
    def found(self) -> np.ndarray:
        """Bool ``(T,)``: frames with a face."""
        return np.isfinite(self.landmarks).all((1, 2))


def track(
    frames: Iterable[np.ndarray],
    detector: Detector | None = None,
    choice: Choice = "only",
    window: int = 7,
    recognise: Recogniser | None = None,
) -> Track:
    """Follow one person's face through a video and stabilise its landmarks over time, shot by shot.

    The person is the one who is chosen in the first frame with a face. A face that overlaps the box of the frame before
    is theirs; after a cut, a gap or a jump it must also look like them, else the person is missing until they are back.

    Args:
        frames: uint8 ``(H, W, 3)`` each, all of one size.
        detector: default `DlibDetector`.
        choice: see `choose`; ``"only"`` also refuses a film in which somebody else appears.
        window: frames of the zero-phase filter, odd; 1 leaves the landmarks as they are.
        recognise: default dlib's embedding.

    Raises:
        UserError: no frame at all, several faces in a frame, or several people one after the other, without a choice
            (the frame is named).
    """
    follower, cut, found, starts = _Follower(choice, recognise), CutFinder(), [], [0]
    detector = detector or DlibDetector()
    for number, frame in enumerate(frames):
        try:
            points, kind = follower(frame, detector(frame), cut(frame))
        except UserError as error:
            raise UserError(f"frame {number}: {error}") from None
        found.append((points, kind))
        if follower.jumped and number:
            starts.append(number)
    if not found:
        raise UserError("the video has no frames")
    raw = np.array([points if points is not None else np.full((68, 2), np.nan) for points, _ in found])
    kinds = [kind for _, kind in found]
    steady = raw.copy()
    if window != 1:
        for start, stop in zip(starts, [*starts[1:], len(raw)], strict=True):
            steady[start:stop] = smooth(raw[start:stop], window)
    others = kinds.count("other")
    return Track(steady, raw, kinds.count("missing") + others, kinds.count("partial"), others, tuple(starts[1:]))


class _Follower:
    """Keeps to one person. Attributes: ``jumped``: the last frame belongs to another shot than the one before it."""

    def __init__(self, choice: Choice, recognise: Recogniser | None) -> None:
        self.choice, self._recognise = choice, recognise
        self.views: list[np.ndarray] = []
        self.last: Box | None = None  # where the person was last seen in this shot
        self.gap, self.jumped, self.age = True, False, 0

    def __call__(self, frame: np.ndarray, faces: list[Face], cut: bool) -> tuple[np.ndarray | None, str]:
        """Landmarks of the person in a frame, or None, and ``"found"``, ``"partial"``, ``"other"`` or ``"missing"``."""
        self.jumped = cut
        if cut:
            self.last, self.gap = None, True
        if self.choice == "only" or not self.views:
            first = choose(faces, self.choice)  # also refuses what "only" does not allow
            if not self.views:
                return self._seen(frame, first)
        if not faces:
            self.gap = True
            return None, "missing"
        face = self._person(frame, faces)
        if face is None:
            self.gap = True
            if self.choice == "only":
                raise UserError("another person appears; choose whom to follow: largest, left or right (--face)")
            return None, "other"
        if self.last is not None and not _overlap(face.box, self.last):
            self.jumped = True
        return self._seen(frame, face)

    def _person(self, frame: np.ndarray, faces: list[Face]) -> Face | None:
        """Whose face is the person's: by its place where nothing came between, else by its looks, too."""
        near = max(faces, key=lambda face: _overlap(face.box, self.last)) if self.last is not None else None
        if near is not None and _overlap(near.box, self.last) <= _FOLLOWED:
            near = None
        if near is not None and not self.gap:
            return near
        best, looks = None, -1.0
        for face in faces:
            if face.inside((frame.shape[1], frame.shape[0])) < WHOLE:
                continue
            alike = max(float(view @ self._embedding(frame, face)) for view in self.views)
            if alike > looks and alike >= (SAME_PLACE if face is near else SAME):
                best, looks = face, alike
        partial = [face for face in faces if face.inside((frame.shape[1], frame.shape[0])) < WHOLE]
        return best if best is not None else partial[0] if len(partial) == len(faces) else None

    def _seen(self, frame: np.ndarray, face: Face | None) -> tuple[np.ndarray | None, str]:
        if face is None:
            return None, "missing"
        if face.inside((frame.shape[1], frame.shape[0])) < WHOLE:
            if not self.gap:
                self.last = face.box
            return None, "partial"
        if not self.views or self.gap or self.age >= _REFRESH:
            self.views = [*self.views, self._embedding(frame, face)][-_VIEWS:]
            self.age = 0
        self.last, self.gap, self.age = face.box, False, self.age + 1
        return face.landmarks, "found"

    def _embedding(self, frame: np.ndarray, face: Face) -> np.ndarray:
        if self._recognise is None:
            from lib.faces.measures import embedding

            self._recognise = embedding
        return self._recognise(frame, face.landmarks)
