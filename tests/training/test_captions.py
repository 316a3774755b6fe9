from collections import Counter

import pytest

from runtime.seeding import Rng
from training.captions import CaptionPolicy

CLIP = {"short": ("s0", "s1", "s2"), "long": ("l0",), "motion": ("m0",)}
POLICY = CaptionPolicy(free={"short": 0.5, "long": 0.3, "none": 0.2}, known={"motion": 0.6, "none": 0.4}, picture={"short": 0.3, "none": 0.7})
N = 4000


def shares(policy, clip, shows):
    drawn = Counter(text[:1] for text in policy.draw(Rng(0), range(N), [clip] * N, [shows] * N))
    return {kind: count / N for kind, count in drawn.items()}


@pytest.mark.parametrize(
    ("shows", "wanted"), [("free", {"s": 0.5, "l": 0.3, "": 0.2}), ("known", {"m": 0.6, "": 0.4}), ("picture", {"s": 0.3, "": 0.7})]
)
def test_kinds_come_up_by_the_weights_of_what_a_sample_shows(shows, wanted):
    assert shares(POLICY, CLIP, shows) == pytest.approx(wanted, abs=4 * 0.5 / N**0.5)  # four standard errors


def test_wordings_of_a_kind_come_up_evenly():
    drawn = Counter(POLICY.draw(Rng(1), range(N), [CLIP] * N, ["free"] * N))
    short = [drawn[text] for text in CLIP["short"]]
    assert min(short) > 0.8 * max(short)


def test_kinds_that_a_clip_lacks_leave_their_weight_to_the_others_but_not_to_none():
    assert shares(POLICY, {"short": ("s",)}, "free") == pytest.approx({"s": 0.8, "": 0.2}, abs=0.04)
    assert shares(POLICY, {"caption": ("c",)}, "known") == pytest.approx({"c": 0.6, "": 0.4}, abs=0.04)
    assert shares(POLICY, {}, "free") == {"": 1.0}
    assert shares(POLICY, {"short": ()}, "free") == {"": 1.0}


def test_a_draw_does_not_depend_on_the_batch():
    together = POLICY.draw(Rng(2), range(50), [CLIP] * 50, [("known", "free")[number % 2] for number in range(50)])
    assert together == [POLICY.draw(Rng(2), [number], [CLIP], [("known", "free")[number % 2]])[0] for number in range(50)]


def test_the_fixed_caption_is_the_first_wording_of_the_most_frequent_kind():
    assert POLICY.fixed([CLIP, {"long": ("l",)}, {"caption": ("c",)}, {}]) == ["s0", "l", "c", ""]


def test_a_table_of_none_alone_shows_no_text_in_training_or_validation():
    policy = CaptionPolicy({"none": 1.0, "short": 0.0}, {"none": 1.0})
    clips = [CLIP, {"label": ("TaiChi",)}]
    assert policy.draw(Rng(0), range(100), clips * 50, ["free", "known"] * 50) == [""] * 100
    assert policy.fixed(clips) == ["", ""]


@pytest.mark.parametrize("table", [{}, {"short": 0.0}, {"short": -1.0, "long": 2.0}, {"short": float("nan")}])
def test_tables_without_a_weight_are_refused(table):
    with pytest.raises(ValueError, match=r"objective\.captions\.known"):
        CaptionPolicy({"short": 1.0}, table)
