"""Who is rendered: the shape of a head and the look of skin, hair and eyes, from a name or a seed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from lib.data.actors.pack import pack
from lib.errors import UserError

Colour = tuple[float, float, float]
"""Linear reflectance of red, green and blue, each in 0..1."""


@dataclasses.dataclass(frozen=True)
class Hair:
    """Scalp hair. Lengths in decimetres.

    Attributes:
        cover: how much of the scalp's colour is hair, 0 (bald) to 1.
        thick, top: how far hair stands off the head everywhere, and on top besides.
        rough: unevenness of the outline.
        recede, fringe: how far the hairline lies back at the temples, and how far it hangs into the forehead.
        long: hair falls to the shoulders.
    """

    cover: float = 1.0
    thick: float = 0.1
    top: float = 0.05
    rough: float = 1.0
    recede: float = 0.0
    fringe: float = 0.0
    long: bool = False


@dataclasses.dataclass(frozen=True)
class Brow:
    """Eyebrows: height over the usual place in dm, arch and width relative to the usual, strength of the colour."""

    height: float = 0.0
    arch: float = 1.0
    width: float = 1.0
    strength: float = 0.85


@dataclasses.dataclass(frozen=True)
class Look:
    """Everything of a person that is not shape. Strengths lie in 0..1; ``age`` as in MakeHuman (0.5 young, 1 old)."""

    seed: int
    skin: Colour
    hair_colour: Colour
    iris: Colour
    lips: Colour
    age: float
    hair: Hair
    brow: Brow = Brow()
    brow_colour: Colour | None = None
    beard: float = 0.0
    freckles: float = 0.0
    blush: float = 0.35
    moles: int = 1
    lip_strength: float = 0.6
    shirt: Colour = (0.2, 0.25, 0.35)

    @property
    def brows(self) -> Colour:
        """Colour of the eyebrows, by default a darker tone of the hair."""
        return self.brow_colour or tuple(0.8 * part for part in self.hair_colour)


@dataclasses.dataclass(frozen=True)
class Identity:
    """A person who can be rendered.

    Attributes:
        name: one of `IDENTITIES`, or ``"random-<seed>"``.
        look: skin, hair and eyes.
        coefficients: of the linear model of head shapes; None for the baked heads.
    """

    name: str
    look: Look
    coefficients: tuple[float, ...] | None = dataclasses.field(default=None, repr=False)

    def vertices(self) -> np.ndarray:
        """Neutral head, float32 ``(N + 1, 3)`` in dm: x to the subject's left, y up, z to the front, the middle of the
        eyes at the origin. The last row is the point that the head turns about."""
        if self.coefficients is None:
            return pack().heads[self.name]
        return pack().mean + np.tensordot(np.array(self.coefficients, np.float32), pack().components, 1)


_LOOKS = {
    "alma": Look(
        11, (0.90, 0.70, 0.60), (0.34, 0.19, 0.09), (0.25, 0.42, 0.55), (0.74, 0.34, 0.34), 0.52,
        Hair(thick=0.16, top=0.08, long=True), Brow(width=0.8, arch=1.25), freckles=0.35, blush=0.55,
    ),
    "bruno": Look(
        12, (0.82, 0.60, 0.49), (0.13, 0.09, 0.06), (0.30, 0.24, 0.12), (0.66, 0.40, 0.36), 0.62,
        Hair(thick=0.09, recede=0.1), Brow(width=1.35, arch=0.7), beard=0.55, shirt=(0.45, 0.13, 0.12),
    ),
    "chika": Look(
        13, (0.42, 0.26, 0.18), (0.055, 0.045, 0.04), (0.16, 0.09, 0.05), (0.48, 0.20, 0.19), 0.50,
        Hair(thick=0.26, top=0.12, rough=0.6), Brow(width=0.8, arch=1.1, height=-0.03), blush=0.2,
        shirt=(0.75, 0.60, 0.20),
    ),
    "dayo": Look(
        14, (0.34, 0.21, 0.145), (0.05, 0.04, 0.035), (0.15, 0.08, 0.05), (0.36, 0.19, 0.17), 0.55,
        Hair(cover=0.75, thick=0.03, top=0.0), Brow(width=1.2, arch=0.8), beard=0.5, blush=0.1, shirt=(0.8, 0.8, 0.8),
    ),
    "emi": Look(
        15, (0.88, 0.70, 0.56), (0.06, 0.05, 0.05), (0.18, 0.10, 0.06), (0.76, 0.33, 0.36), 0.46,
        Hair(thick=0.12, top=0.06, long=True, fringe=0.22), Brow(width=0.7, arch=0.7, height=-0.02), blush=0.4,
        shirt=(0.15, 0.40, 0.35),
    ),
    "feng": Look(
        16, (0.76, 0.57, 0.42), (0.33, 0.32, 0.31), (0.14, 0.09, 0.06), (0.60, 0.36, 0.32), 0.75,
        Hair(thick=0.07, top=0.0, recede=0.25), Brow(width=1.1), (0.18, 0.16, 0.15), beard=0.15, moles=3,
        shirt=(0.3, 0.3, 0.5),
    ),
    "greta": Look(
        17, (0.80, 0.60, 0.48), (0.72, 0.70, 0.68), (0.28, 0.36, 0.30), (0.66, 0.36, 0.35), 0.85,
        Hair(thick=0.2, top=0.08), Brow(width=0.75), (0.42, 0.38, 0.35), blush=0.4, moles=2, shirt=(0.5, 0.3, 0.5),
    ),
    "hugo": Look(
        18, (0.93, 0.73, 0.63), (0.66, 0.40, 0.17), (0.22, 0.45, 0.33), (0.78, 0.42, 0.40), 0.33,
        Hair(thick=0.14), Brow(), (0.5, 0.3, 0.14), freckles=0.85, blush=0.6, shirt=(0.2, 0.5, 0.7),
    ),
}  # fmt: skip
IDENTITIES: tuple[str, ...] = tuple(_LOOKS)
"""Names of the eight baked identities."""


def identity(name: str | Identity) -> Identity:
    """The person of that name: one of `IDENTITIES`, or ``"random-<seed>"``. Raises `UserError` for another name."""
    if isinstance(name, Identity):
        return name
    if name in _LOOKS:
        return Identity(name, _LOOKS[name])
    kind, _, seed = str(name).partition("-")
    if kind == "random" and seed.isascii() and seed.isdigit():
        return random_identity(int(seed))
    from lib.config import nearest

    raise UserError(
        f"no rendered actor is called {name!r}{nearest(name, IDENTITIES)}; there are {', '.join(IDENTITIES)} "
        "and random-<seed>"
    )


@functools.lru_cache(maxsize=4096)
def random_identity(seed: int) -> Identity:
    """Another person, shape and look a function of ``seed`` (an integer >= 0), called ``"random-<seed>"``.

    Age, sex, origin and weight are drawn first. The shape follows from them by the linear model of the pack, with what
    they leave open drawn from its covariance; skin, hair and eyes are drawn to match. No random identity equals a
    baked one, and none depicts a real person.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise UserError(f"the seed of a random identity is an integer >= 0, not {seed!r}")
    rng = np.random.default_rng((int(seed), 0xFACE))
    person = draw_attributes(rng)
    model = pack()
    free = np.clip(rng.normal(size=len(model.components)), -2.2, 2.2)  # no caricatures
    coefficients = attributes(*person) @ model.regression + model.spread @ free
    look = _draw_look(rng, int(rng.integers(2**31)), *person)
    return Identity(f"random-{int(seed)}", look, tuple(float(value) for value in coefficients))


def draw_attributes(rng: np.random.Generator) -> tuple[tuple[float, float, float], float, float, float]:
    """A random person: shares of (caucasian, african, asian) in MakeHuman's terms, male (0 or 1), age, weight."""
    origin = rng.dirichlet((0.3, 0.3, 0.3))
    male, age = float(rng.random() < 0.5), 0.36 + 0.58 * rng.beta(1.1, 1.9)
    return tuple(float(share) for share in origin), male, float(age), float(rng.uniform(0.35, 0.7))


def attributes(origin: Sequence[float], male: float, age: float, weight: float) -> np.ndarray:
    """Features ``(11,)`` of a person from which the linear model predicts the mean shape: shares and products, as
    MakeHuman's own targets multiply origin, sex and age."""
    _, african, asian = origin
    old, child = max(0.0, 2 * age - 1), max(0.0, (0.5 - age) / 0.3125)
    shared = (african, asian, old, child)
    return np.array([1.0, male, weight - 0.5, *shared, *(male * value for value in shared)])


def _mixed(a: Sequence[float], b: Sequence[float], share: float) -> Colour:
    return tuple(float(np.clip((1 - share) * x + share * y, 0.02, 0.97)) for x, y in zip(a, b, strict=True))


def _draw_look(rng: np.random.Generator, seed: int, origin, male: float, age: float, weight: float) -> Look:
    """A look that fits the attributes of a person."""
    tones = np.array([(0.88, 0.68, 0.58), (0.40, 0.25, 0.175), (0.85, 0.65, 0.50)])
    warmth = 1 + np.array([0.0, 0.02, 0.05]) * np.clip(rng.normal(), -1.5, 1.5)
    skin = np.array(origin) @ tones * np.exp(rng.normal(0, 0.13)) * warmth
    skin = skin * min(1.0, 0.94 / skin.max())
    fair = origin[0] > 0.55 and skin.mean() > 0.55
    natural = [(0.05, 0.04, 0.035), (0.10, 0.07, 0.05)]
    if fair:
        natural += [(0.20, 0.12, 0.07), (0.34, 0.20, 0.10), (0.66, 0.47, 0.25), (0.50, 0.22, 0.08)]
    hair_colour = _mixed(natural[rng.integers(len(natural))], (0.12, 0.08, 0.05), 0.3 * rng.random())
    old = max(0.0, 2 * age - 1)
    grey = float(np.clip((old - 0.3 + 0.35 * rng.normal()) * 1.6, 0, 1)) * (old > 0.15)
    brows = _mixed([0.8 * part for part in hair_colour], (0.45, 0.43, 0.41), 0.6 * grey)
    hair_colour = _mixed(hair_colour, (0.68, 0.66, 0.64), grey)
    irises = [(0.16, 0.09, 0.05), (0.26, 0.16, 0.08)]
    if fair:
        irises += [(0.25, 0.42, 0.55), (0.22, 0.45, 0.33), (0.36, 0.42, 0.45)]
    iris = _mixed(irises[rng.integers(len(irises))], (0.2, 0.2, 0.15), 0.2 * rng.random())
    lips = _mixed(skin * (0.92, 0.72, 0.74), (0.66, 0.20, 0.24), rng.uniform(0.1, 0.35) if male else rng.random() * 0.7)
    if male:
        bald, cropped = rng.random() < 0.06 + 0.22 * old, rng.random() < 0.3 + 0.3 * origin[1]
        hair = Hair(
            cover=0.15 if bald else 0.75 if cropped else 1.0,
            thick=0.0 if bald else 0.03 if cropped else rng.uniform(0.06, 0.17),
            top=0.0 if bald or cropped else rng.uniform(0.0, 0.1),
            recede=float(np.clip(rng.normal(0.05 + 0.2 * old, 0.1), 0, 0.35)),
            long=bool(rng.random() < 0.07) and not (bald or cropped),
        )
    else:
        hair = Hair(
            thick=rng.uniform(0.09, 0.24),
            top=rng.uniform(0.03, 0.12),
            rough=rng.uniform(0.5, 1.0),
            fringe=rng.uniform(0.08, 0.25) if rng.random() < 0.4 else 0.0,
            long=bool(rng.random() < 0.6 - 0.25 * old),
        )
    shirt = np.array([(0.2, 0.25, 0.35), (0.45, 0.13, 0.12), (0.8, 0.8, 0.8), (0.15, 0.4, 0.35), (0.12, 0.12, 0.13),
                      (0.7, 0.55, 0.2), (0.5, 0.3, 0.5), (0.2, 0.5, 0.7)])[rng.integers(8)]  # fmt: skip
    return Look(
        seed=seed,
        skin=tuple(float(part) for part in skin),
        hair_colour=hair_colour,
        iris=iris,
        lips=lips,
        age=age,
        hair=hair,
        brow=Brow(
            height=rng.uniform(-0.03, 0.02),
            arch=rng.uniform(0.6, 1.3),
            width=rng.uniform(1.0, 1.45) if male else rng.uniform(0.65, 1.0),
            strength=rng.uniform(0.7, 0.95),
        ),
        brow_colour=brows,
        beard=float(rng.choice([0.0, 0.25, 0.55, 0.85], p=[0.4, 0.25, 0.2, 0.15])) if male else 0.0,
        freckles=float(rng.uniform(0.2, 0.9)) if fair and rng.random() < 0.3 else 0.0,
        blush=rng.uniform(0.15, 0.6) * float(skin.mean() > 0.4) + 0.1,
        moles=int(rng.integers(4)),
        lip_strength=rng.uniform(0.45, 0.75),
        shirt=_mixed(shirt, rng.random(3), 0.15),
    )
