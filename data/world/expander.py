"""Short prompts in the world's long caption style: what a prompt says stays said, what it leaves open is drawn from what the level shows."""

from collections.abc import Iterator

import numpy as np

from data.world.captions import said, wording, words
from data.world.parser import Parsed, PromptError, parse
from data.world.sampling import LEVELS
from data.world.splits import Triple, by_kind, check_difficulty, combinations, motions, possible, seen_weights
from data.world.vocabulary import DIRECTIONS, MOTIONS, PLAIN_BACKGROUNDS, SIZES, Attributes, Claim
from runtime.seeding import Stream, generator, text_counter

SHOW_THE_CAMERA = ("checks", "speckles")  # backgrounds over which one sees where a camera moves
WORDINGS = 16  # that are tried where a level's captions are short


class WorldGrammar:
    """Expands prompts for a model that was trained on the world.

    A prompt names its objects and what is unusual, as the short captions do: one that is silent about camera, light and post means a still
    camera, daylight and no post. Shapes, colours, motions, sizes and the background are drawn, together as the training split shows them
    where that leaves a choice. No object is added, but for a prompt that names none.

    Args:
        difficulty: of the world that the model was trained on: easy, standard, hard or sora.
        strict: whether a prompt is refused that the world has no words for, that contradicts itself or that no clip of the level shows.
            Else it is left as it is, all of it.
    """

    def __init__(self, difficulty: str = "easy", strict: bool = True) -> None:
        check_difficulty(difficulty)
        self.difficulty, self.strict, self.level = difficulty, strict, LEVELS[difficulty]

    def expand(self, prompt: str, seed: int) -> str:
        """A long caption that claims all that the prompt claims, a function of (prompt, seed); a blank prompt stays as it is.

        Raises: PromptError (a ValueError) naming what cannot be meant.
        """
        if not prompt.strip():
            return prompt
        try:
            parsed = parse(prompt)
            unseen = next(self._never_shown(parsed.claim), None)
            if unseen:
                raise PromptError(f"prompt {prompt!r:.120}: no clip of expander.difficulty={self.difficulty} shows {unseen}.")
        except PromptError as error:
            if not self.strict:
                return prompt
            raise PromptError(f"{error} Change the prompt, or set expander.strict=false to leave such prompts as they are.") from None
        rng = generator(seed, Stream.EXPANSION, text_counter(prompt))
        claim = said(self._complete(parsed, rng), "long")
        texts = [wording(claim, "long", rng) for _ in range(WORDINGS)]
        most = self.level.most_words
        return next((text for text in texts if most is None or len(words(text)) <= most), min(texts, key=lambda text: len(words(text))))

    def _never_shown(self, claim: Claim) -> Iterator[str]:
        """What the model of this level cannot know."""
        level, ground = self.level, "plain" if claim.background in PLAIN_BACKGROUNDS else claim.background
        colours = [one.colour for one in claim.objects if one.colour]
        if claim.count > len(level.counts):
            yield f"{claim.count} objects"
        if len(set(colours)) < len(colours):
            yield "two objects of one colour"
        for one in claim.objects:
            if one.motion and one.motion not in motions(self.difficulty):
                yield f"the motion {one.motion!r}"
            if one.shape and one.motion and not possible(one.shape, one.motion):
                yield f"a {one.shape} with the motion {one.motion!r}"
        if ground and ground not in level.backgrounds:
            yield f"the background {ground!r}"
        if claim.camera not in (None, "static"):
            if not level.moving_camera:
                yield "a moving camera"
            if ground not in (None, *SHOW_THE_CAMERA):
                yield f"a moving camera over any background but {' and '.join(SHOW_THE_CAMERA)}"
        if claim.light == "night" and not level.night:
            yield "night"
        if claim.occluder and not level.posts.share:
            yield "a post"
        if claim.occluder and claim.objects and all(one.motion and one.motion not in level.posts.motions for one in claim.objects):
            yield f"a post with nothing but the motion {claim.objects[0].motion!r}"

    def _complete(self, parsed: Parsed, rng: np.random.Generator) -> Claim:
        """The claim with every field that a long caption tells of."""
        claim, moving = parsed.claim, parsed.moving
        objects = claim.objects or (Attributes(),)
        taken = {one.colour for one in objects}
        fitting = set(self.level.posts.motions if claim.occluder else MOTIONS)
        cast = []
        for one, somewhere in zip(objects, moving or (False,), strict=True):
            shape, colour, motion = self._triple(one, fitting & set(DIRECTIONS) if somewhere else fitting, taken, rng)
            taken.add(colour)
            drawn = str(rng.choice(self.level.posts.sizes if claim.occluder else SIZES))
            changes = motion in ("grow", "shrink")  # then no caption names a size
            cast.append(Attributes(shape, colour, motion, one.size or (None if changes else drawn)))
        camera = claim.camera or "static"
        return Claim(tuple(cast), claim.background or self._background(camera, rng), camera, claim.light or "day", claim.occluder)

    def _triple(self, one: Attributes, fitting: set[str], taken: set[str | None], rng: np.random.Generator) -> Triple:
        """Shape, colour and motion that agree with what is said, if possible as training shows them.

        Args:
            fitting: the motions to draw from.
            taken: the colours that are not drawn.
        """

        def agrees(triple: Triple) -> bool:
            told = zip((one.shape, one.colour, one.motion), triple, strict=True)
            free = (one.colour or triple[1] not in taken) and (one.motion or triple[2] in fitting)
            return bool(free) and all(value in (None, own) for value, own in told)

        seen, others = by_kind(self.difficulty)[None], combinations(self.difficulty)
        weights = np.asarray([weight * agrees(triple) for triple, weight in zip(seen, seen_weights(self.difficulty), strict=True)])
        if weights.any():
            return seen[int(rng.choice(len(seen), p=weights / weights.sum()))]
        choices = [triple for triple in others if agrees(triple)]
        return choices[int(rng.integers(len(choices)))]

    def _background(self, camera: str, rng: np.random.Generator) -> str:
        shares = {kind: share for kind, share in self.level.backgrounds.items() if camera == "static" or kind in SHOW_THE_CAMERA}
        total = sum(shares.values())
        kind = str(rng.choice(list(shares), p=[share / total for share in shares.values()]))
        return str(rng.choice(list(PLAIN_BACKGROUNDS))) if kind == "plain" else kind
