"""What chapter 6 trains, declared by name.

    base ──► teacher ──► generic ──► distilled_<clip>
                    ├──► truth_<clip>, ablation_<variant>
                    └──► motion
"""

from __future__ import annotations

from lib import data
from lib.config import override
from lib.errors import UserError
from lib.microdosing import sequences
from lib.microdosing.config import ChapterConfig, StudentConfig
from lib.microdosing.distillation import Source, StudentTask
from lib.microdosing.tasks import BaseTask, MotionTask, TeacherTask, hash_of, trained
from lib.training import task

ABLATIONS: dict[str, dict] = {
    "reference": {},
    "half_channels": {"micro.channels": 0.5},
    "double_channels": {"micro.channels": 2},
    "one_block": {"micro.blocks": 1},
    "four_blocks": {"micro.blocks": 4},
    "features_only": {"features": 1.0, "mse": 0.0, "lpips": 0.0},
    "full_features": {"features": 1.0},
    "no_features": {"features": 0.0},
    "teacher_images": {"frames": 0.0},
    "no_lpips": {"lpips": 0.0},
    "twice_as_long": {"features": 0.0, "train.steps": 2},
    "from_photographs": {},
    "bits_4": {"bits": 4},
}
"""Each changes one thing of the `ablation` student, which starts from nothing on the chapter's first sequence."""


def photo_source(chapter: ChapterConfig) -> Source:
    """The teacher's own photographs."""
    return Source(
        lambda: [image for _, image in data.training_photos(chapter.training_set)],
        data.training_identity(chapter.training_set),
    )


def sequence_source(chapter: ChapterConfig, clip: str) -> Source:
    """One of the chapter's sequences.

    Raises:
        UserError: the preset has no sequence of this clip.
    """
    config = chapter.sequences.get(clip)
    if config is None:
        raise UserError(f"this preset has no sequence of {clip}; it has: {', '.join(chapter.sequences)}")
    return Source(lambda: list(sequences.frames(clip, config)), sequences.sequence_identity(clip, config))


def ablated(config: StudentConfig, variant: str) -> StudentConfig:
    """The `ablation` student with one thing changed."""
    changes = dict(ABLATIONS[variant])
    for key, whole in (("micro.channels", config.micro.channels), ("train.steps", config.train.steps)):
        if key in changes:  # given as multiples
            changes[key] = max(1, round(whole * changes[key]))
    return override(config, changes)


def _student(
    model: str, config: StudentConfig, source: Source, chapter: ChapterConfig, seed: int, *, started: bool = False
) -> StudentTask:
    """``started``: its first weights are those of the student of photographs."""
    identity = {"teacher": hash_of("teacher", chapter, seed)}
    if started:
        identity["start"] = hash_of("generic", chapter, seed)
    return StudentTask(
        f"microdosing.{model}", config, source, lambda: trained("teacher", chapter, seed).model,
        16 * chapter.base.model.width, identity,
        start=(lambda: trained("generic", chapter, seed).student) if started else None, seed=seed,
    )  # fmt: skip


@task("base")
def base(chapter: ChapterConfig, seed: int) -> BaseTask:
    """Stage one of the teacher, without a discriminator."""
    return BaseTask("microdosing.base", chapter.base, chapter, seed)


@task("teacher", needs=("base",))
def teacher(chapter: ChapterConfig, seed: int) -> TeacherTask:
    """Stage two."""
    return TeacherTask("microdosing.teacher", chapter.teacher, chapter, seed)


@task("generic", needs=("teacher",))
def generic(chapter: ChapterConfig, seed: int) -> StudentTask:
    """The student of photographs."""
    return _student("generic", chapter.generic, photo_source(chapter), chapter, seed)


@task("distilled_{}", sequences.CLIPS, needs=("teacher", "generic"))
def distilled(chapter: ChapterConfig, seed: int, key: str) -> StudentTask:
    """The student of a sequence, which goes on from that of photographs."""
    source = sequence_source(chapter, key)
    return _student(f"distilled_{key}", chapter.student, source, chapter, seed, started=True)


@task("truth_{}", sequences.CLIPS, needs=("teacher",))
def truth(chapter: ChapterConfig, seed: int, key: str) -> StudentTask:
    """A student of a sequence's frames without anything of the teacher, from random weights, for as many steps."""
    config = override(chapter.student, {"features": 0.0, "frames": 1.0})
    return _student(f"truth_{key}", config, sequence_source(chapter, key), chapter, seed)


@task("ablation_{}", ABLATIONS, needs=("teacher", "generic"))
def ablation(chapter: ChapterConfig, seed: int, key: str) -> StudentTask:
    """A briefly trained student of the first sequence, one thing changed."""
    source = sequence_source(chapter, next(iter(chapter.sequences)))
    config = ablated(chapter.ablation, key)
    return _student(f"ablation_{key}", config, source, chapter, seed, started=key == "from_photographs")


@task("motion", needs=("teacher",))
def motion(chapter: ChapterConfig, seed: int) -> MotionTask:
    """The networks of the video codec."""
    return MotionTask("microdosing.motion", chapter.motion, chapter, seed)
