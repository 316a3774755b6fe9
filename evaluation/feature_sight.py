"""What features of clips can see: how few spoilt clips a Frechet distance over them tells from chance, and what can be read off them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.world.captions import facts
from data.world.render import render
from data.world.sampling import draw_scene
from evaluation import forgeries
from evaluation.forgeries import Draw, Forgery
from evaluation.frechet import frechet, gaussian
from runtime.seeding import Stream, generator

Video = NDArray[np.uint8]  # t h w c
Values = NDArray[np.float64]
Sees = Callable[[Video], Values]  # a clip as its samples, k d

# What spoils a painted clip that has any motion, shape and colour: what is wrong with how it moves, and with what it looks like.
FAULTS: Mapping[str, tuple[Callable[[Draw], Forgery], ...]] = {
    "motion": (
        *(forgeries.frozen, forgeries.creeping, forgeries.returning, forgeries.shuffled),
        *(forgeries.jumping, forgeries.flickering, forgeries.pulsing, forgeries.vanishing),
    ),
    "look": (forgeries.blob, forgeries.dented, forgeries.ring, forgeries.stretched, forgeries.morphing, forgeries.recoloured),
}
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)  # of spoilt clips that are tried, the least first
BLIND = 2.0  # what stands for "not even when all are spoilt" in a mean
FALSE_ALARMS, HITS = 0.05, 0.8
PROBED = ("shape", "colour", "motion", "background")


@dataclass(frozen=True, slots=True)
class Pools:
    """Clips to judge features by, all made by numbers.

    Args:
        honest: as painted, to be compared with each other.
        spoilt: by what is wrong.
        scenes, truth: clips of the world with their attributes, in the order of PROBED; the first half is learnt from, the second asked.
    """

    honest: Sequence[Video]
    spoilt: Mapping[str, Sequence[Video]]
    scenes: Sequence[Video]
    truth: Sequence[tuple[str, ...]]


def pools(honest: int, spoilt: int, scenes: int, seed: int, frames: int = 17, size: int = 64) -> Pools:
    """So many honest clips, spoilt clips of each kind, and clips of the easy world."""

    def draw(number: int, part: int) -> Draw:
        return Draw(generator(seed, Stream.WORLD, number, part), frames, size)

    kinds = [kind for group in FAULTS.values() for kind in group]
    drawn = [draw_scene(seed, number, "easy", "val") for number in range(scenes)]
    return Pools(
        [draw(number, 100).sketch().video() for number in range(honest)],
        {kind.__name__: [kind(draw(number, 101 + place)).video for number in range(spoilt)] for place, kind in enumerate(kinds)},
        [render(scene, frames, size, size) for scene in drawn],
        [tuple(map(str, (one.shape, one.colour, one.motion, told.background))) for told in map(facts, drawn) for one in told.objects[:1]],
    )


def in_main_directions(values: Sequence[Values], dimensions: int) -> Callable[[Values], Values]:
    """Features in the main directions of these samples, each of deviation 1: what `VideoEncoder.features` does, for any others."""
    data = np.concatenate(values)
    centre = data.mean(axis=0)
    variances, vectors = np.linalg.eigh(np.cov((data - centre).T))  # ascending
    kept = [place for place in np.argsort(variances)[::-1][:dimensions] if variances[place] > 1e-9 * variances[-1]]
    return lambda samples: (samples - centre) @ (vectors[:, kept] / np.sqrt(variances[kept]))


@dataclass(frozen=True, slots=True)
class Jury:
    """Frechet distances between sets of `clips` clips that are drawn from honest ones anew each time, both sets from all of them and no clip in both.

    Two fixed halves would not do: what chance made of them would stand in every draw, and make honest clips look spoilt.

    Args:
        honest: for every clip its samples, (k, d); at least twice `clips`.
        draws: of sets.
    """

    honest: Sequence[Values]
    clips: int
    seed: int
    draws: int

    def __post_init__(self) -> None:
        if len(self.honest) < 2 * self.clips:
            raise ValueError(f"{len(self.honest)} honest clips make no two sets of {self.clips}. Set honest, or clips.")

    def chance(self) -> float:
        """What sets of honest clips alone exceed in FALSE_ALARMS of the draws."""
        return float(np.quantile(self._apart((), 0, 4 * self.draws), 1 - FALSE_ALARMS))

    def least_share(self, spoilt: Sequence[Values], chance: float) -> float:
        """The least of SHARES at which sets with so many spoilt clips lie farther from honest ones than `chance`, in HITS of the draws; or BLIND.

        Raises: ValueError if there are fewer spoilt clips than a set has, or samples are not more than dimensions.
        """
        if len(spoilt) < self.clips:
            raise ValueError(f"{len(spoilt)} spoilt clips make no set of {self.clips}.")
        for share in SHARES:
            found = self._apart(spoilt, max(1, round(share * self.clips)), self.draws)
            if np.mean([each > chance for each in found]) >= HITS:
                return share
        return BLIND

    def _apart(self, spoilt: Sequence[Values], bad: int, draws: int) -> list[float]:
        rng, found = generator(self.seed, Stream.BOOTSTRAP, 4, bad), []
        for _ in range(draws):
            order, worse = rng.permutation(len(self.honest)), rng.permutation(len(spoilt))[:bad]
            real = [self.honest[place] for place in order[: self.clips]]
            mixed = [self.honest[place] for place in order[self.clips : 2 * self.clips - bad]] + [spoilt[place] for place in worse]
            found.append(frechet(gaussian(np.concatenate(real)), gaussian(np.concatenate(mixed))))
        return found


def probe(values: Sequence[Values], truth: Sequence[tuple[str, ...]], penalty: float = 1e-2) -> dict[str, float]:
    """Share of the second half of the clips whose attributes a ridge regression on the first half reads right, from the mean of their samples."""
    data = np.stack([samples.mean(axis=0) for samples in values])
    middle = len(data) // 2
    data = (data - data[:middle].mean(axis=0)) / (data[:middle].std(axis=0) + 1e-9)
    data = np.column_stack([data, np.ones(len(data))])
    known, asked = data[:middle], data[middle:]
    square = known.T @ known + penalty * middle * np.eye(data.shape[1])
    found = {}
    for place, attribute in enumerate(PROBED):
        said = np.array([each[place] for each in truth])
        names = np.unique(said[:middle])
        weights = np.linalg.solve(square, known.T @ (said[:middle, None] == names))
        found[attribute] = float((names[(asked @ weights).argmax(axis=1)] == said[middle:]).mean())
    return found


def sight(given: Pools, sees: Sees, clips: int, seed: int, draws: int = 20, dimensions: int | None = None) -> dict[str, dict[str, float]]:
    """`probe` and, by group of FAULTS, the least share of each kind and their geometric mean ("mean").

    Args:
        clips, seed, draws: see `Jury`.
        dimensions: None: features as they are; a number: in so many main directions of the world's clips.
    """
    scenes = [sees(video) for video in given.scenes]
    turned = in_main_directions(scenes, dimensions) if dimensions else lambda samples: samples
    jury = Jury([turned(sees(video)) for video in given.honest], clips, seed, draws)
    found, chance = {"probe": probe(scenes, given.truth)}, jury.chance()
    for group, kinds in FAULTS.items():
        names = [kind.__name__ for kind in kinds]
        shares = {name: jury.least_share([turned(sees(video)) for video in given.spoilt[name]], chance) for name in names}
        found[group] = {"mean": float(np.exp(np.mean(np.log(list(shares.values()))))), **shares}
    return found
