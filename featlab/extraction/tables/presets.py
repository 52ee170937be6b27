"""What the tables of known tools look like: which columns are what, and which rows the tool itself calls failed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from featlab.errors import ConfigError, closest


@dataclass(frozen=True)
class Preset:
    """The table of one tool. Names of columns are regular expressions for whole names, but in ``frame`` and ``path``.

    A table is the tool's where each expression of one of the ``marks`` fits a column. ``default`` names groups: the
    first that the table has is taken. A row has failed where a column of ``zero`` is 0, one of ``zero_of_some`` is 0
    and isn't 0 in every row, or one of ``empty`` is empty. ``face`` tells the faces of one recording apart.
    """

    name: str
    title: str
    marks: tuple[tuple[str, ...], ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    default: tuple[str, ...] = ()
    zero: str = ""
    zero_of_some: str = ""
    empty: str = ""
    face: str = ""
    frame: str = "frame"
    path: tuple[str, ...] = ()

    def fits(self, header: tuple[str, ...]) -> bool:
        """Whether a table with these columns is this tool's."""
        return any(all(columns_of(mark, header) for mark in marks) for marks in self.marks)

    def groups_in(self, header: tuple[str, ...]) -> list[str]:
        """Return the groups that have a column here."""
        return [group for group, columns in self.groups.items() if columns_of(columns, header)]


@lru_cache(maxsize=256)
def columns_of(pattern: str, header: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns whose whole name fits; the tables of a folder ask the same."""
    fits = re.compile(pattern).fullmatch
    return tuple(name for name in header if name and fits(name))


_AU_R, _AU_C, _AU = r"AU\d\d_r", r"AU\d\d_c", r"AU\d\d"
_POSE, _GAZE = r"pose_[TR][xyz]", r"gaze_\d_[xyz]|gaze_angle_[xy]"
_SEVEN = "anger|disgust|fear|happiness|sadness|surprise|neutral"

OPENFACE2 = Preset(
    "openface2",
    "OpenFace 2",
    marks=((_AU_R,), ("success|confidence", f"{_AU_C}|{_POSE}|{_GAZE}|[xX]_0|eye_lmk_x_0|p_rx")),
    groups={
        "au": f"{_AU_R}|{_AU_C}",
        "au-r": _AU_R,
        "au-c": _AU_C,
        "pose": _POSE,
        "gaze": _GAZE,
        "all": f"{_AU_R}|{_AU_C}|{_POSE}|{_GAZE}",
        "shape": r"p_\d+",
        "mesh": r"[XYZ]_\d+",
    },
    default=("au-r", "au-c", "shape", "all", "mesh"),
    zero="success|confidence",
    face="face_id|face",
)
"""TadasBaltrusaitis/OpenFace, lib/local/Utilities/src/RecorderCSV.cpp (FeatureExtraction, and FaceLandmarkImg with
``face`` and without ``success``). ``x_0``, ``y_0``, … become landmarks."""

OPENFACE3 = Preset(
    "openface3",
    "OpenFace 3",
    marks=(("face_detection", "action_units"),),
    groups={"au": "action_units", "gaze": "gaze_yaw|gaze_pitch", "box": "face_detection", "mesh": "landmarks"},
    default=("au",),
    empty="face_id",
    face="face_id",
    frame="frame_index",
    path=("video_path", "image_path"),
)
"""CMU-MultiComp-Lab/OpenFace-3.0, the package openface-test 0.1.26, openface/demo.py: lists in cells; a frame without a
face has no ``face_id``."""

PY_FEAT = Preset(
    "py-feat",
    "py-feat",
    marks=(("FaceScore|FaceRectX", f"{_AU}|anger|Anger|Identity_1|Pitch"),),
    groups={
        "au": _AU,
        "emotions": f"{_SEVEN}|Neutral|Happy|Sad|Surprise|Fear|Disgust|Anger|Contempt",
        "affect": "valence|arousal",
        "blendshapes": "_neutral|(brow|cheek|eye|jaw|mouth|nose)[A-Z][A-Za-z]+",
        "pose": "Pitch|Roll|Yaw|[XYZ]",
        "gaze": "gaze_pitch|gaze_yaw|gaze_angle",
        "mesh": r"mesh_[xyz]_\d+",
        "identity": r"Identity_\d+",
        "box": "FaceRectX|FaceRectY|FaceRectWidth|FaceRectHeight",
    },
    default=("au", "blendshapes", "emotions"),
    zero="FaceScore",
    empty="FaceScore",
    face="Identity",
    path=("input",),
)
"""cosanlab/py-feat 2.1.5, feat/utils/__init__.py (names), feat/detector.py and feat/detector_v2.py (order; a frame
without a face has no ``FaceScore``; ``Identity`` numbers the people)."""

LIBREFACE = Preset(
    "libreface",
    "LibreFace",
    marks=((r"au_\d+_intensity",), ("facial_expression", r"au_\d+|lm_mp_0_x")),
    groups={
        "au": r"au_\d+(_intensity)?",
        "au-r": r"au_\d+_intensity",
        "au-c": r"au_\d+",
        "pose": "pitch|yaw|roll",
        "gaze": "gaze_yaw|gaze_pitch",
        "mesh": r"lm_mp_\d+_[xyz]",
    },
    default=("au-r", "au-c", "mesh"),
    frame="frame_idx",
    path=("path_to_frame", "input_image_path"),
)
"""ihp-lab/LibreFace, README_pypi.rst (Output Format) and the package libreface 0.2.0, libreface/__init__.py; frames
without a face are left out by LibreFace itself."""

OPENWILLIS = Preset(
    "openwillis",
    "OpenWillis",
    marks=(("time", "mouth_openness"), (r"lmk\d\d\d(_x)?", "time")),
    groups={
        "au": _AU,
        "emotions": _SEVEN,
        "movement": r"lmk\d\d\d|overall",
        "mesh": r"lmk\d\d\d_[xyz]",
        "mouth": "mouth_openness",
    },
    default=("au", "emotions", "movement", "mesh"),
    empty="lmk001_x",
)
"""bklynhlth/openwillis, openwillis-face/src/openwillis/face/facial_emotion.py (`emotional_expressivity`) and
face_landmark.py (`facial_expressivity`; a frame without a face has empty landmarks)."""

DEEPFACE = Preset(
    "deepface",
    "DeepFace",
    marks=(
        (r"embedding(_?\d+)?", r"face_confidence|facial_area.*"),
        (r"dominant_emotion|emotion\.happy", r"face_confidence|region.*"),
    ),
    groups={
        "embedding": r"embedding(_?\d+)?",
        "emotions": r"(emotion\.)?(angry|disgust|fear|happy|sad|surprise|neutral)",
        "box": r"(facial_area|region)[._][xywh]",
    },
    default=("embedding", "emotions"),
    zero_of_some="face_confidence",
    path=("img_path",),
)
"""serengil/deepface 0.0.103, deepface/modules/representation.py and demography.py: what ``represent`` and ``analyze``
return, as a table (with pandas.json_normalize or without). ``face_confidence`` is 0 where ``enforce_detection`` is off
and no face was found, and in every row where the detector was skipped."""

EMOTIEFFLIB = Preset(
    "emotiefflib",
    "EmotiEffLib",
    marks=(("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness", "Surprise"),),
    groups={
        "embedding": r"features?|embeddings?|(features?_|f)?\d+",
        "emotions": "Anger|Contempt|Disgust|Fear|Happiness|Neutral|Sadness|Surprise",
        "affect": "Valence|Arousal|valence|arousal",
    },
    default=("embedding", "emotions"),
)
"""sb-ai-lab/EmotiEffLib, the package emotiefflib 1.1.1, emotiefflib/facial_analysis.py: features and scores come as
arrays, the scores in the order of ``idx_to_emotion_class``."""

ANY_TOOL = Preset("", "", zero="success|confidence", zero_of_some="face_confidence", face="face_id|face")
"""Of a table that is no known tool's."""

PRESETS = {
    preset.name: preset for preset in (OPENFACE2, OPENFACE3, PY_FEAT, LIBREFACE, OPENWILLIS, DEEPFACE, EMOTIEFFLIB)
}

WORDS = {
    "au": "action units",
    "au-r": "action units (intensity)",
    "au-c": "action units (presence)",
    "emotions": "emotion scores",
    "embedding": "values of the embedding",
    "all": "values of head pose and gaze",
    "shape": "shape parameters",
    "movement": "movements of landmarks",
    "mesh": "coordinates of landmarks",
}
"""What a default group's columns are called."""


def find_preset(header: tuple[str, ...], name: str | None) -> Preset:
    """Return the preset called so, or else the first whose columns these are, or else `ANY_TOOL`."""
    if name is not None:
        if name not in PRESETS:
            raise ConfigError(f"--from {name!r} is not one of {', '.join(PRESETS)}{closest(name, PRESETS)}")
        return PRESETS[name]
    return next((preset for preset in PRESETS.values() if preset.fits(header)), ANY_TOOL)
