"""Predictions are closed forms: they scale as their formulas say, and give the published roofline of an H200."""

import pytest

from accounting.roofline import EAGER, H200, Hardware, Work, dit_work, forward_floor, known_hardware, mfu, train_floor

ONE = Hardware("one", 1.0, 1.0, {("sdpa", 8): (1.0, 1.0)}, 1.0)


def test_a_step_is_its_products_its_attention_and_its_bytes():
    floor = train_floor(Work(10.0, 4.0, 7.0), ONE, "sdpa", 8)
    assert (floor.matmul_s, floor.attention_s, floor.elementwise_s) == (30.0, 4.0 + 2.5 * 4.0, 7.0)
    assert floor.seconds == 30.0 + 14.0 + 7.0
    forward = forward_floor(Work(10.0, 4.0, 9.0), ONE, "sdpa", 8, EAGER)
    assert (forward.matmul_s, forward.attention_s, forward.elementwise_s) == (10.0, 4.0, 2.5 * 3.0)


def test_products_grow_with_tokens_and_attention_with_their_square():
    one, two = dit_work(64, 3, 100, 2), dit_work(64, 3, 200, 2)
    assert one.matmul_flop == 2 * 16 * 64 * 64 * 3 * 200
    assert one.attention_flop == 4 * 100 * 100 * 64 * 3 * 2
    assert (two.matmul_flop, two.attention_flop, two.train_bytes) == (2 * one.matmul_flop, 4 * one.attention_flop, 2 * one.train_bytes)


@pytest.mark.parametrize(
    ("width", "depth", "tokens", "samples", "backend", "head_width", "fused", "eager"),
    [
        (1536, 28, 8192, 4, "cudnn", 128, 0.51, 0.44),
        (1536, 28, 32768, 1, "cudnn", 128, 0.48, 0.45),
        (1536, 28, 8192, 4, "flash", 64, 0.37, 0.34),  # 0.335: published as 0.34
        (1536, 28, 32768, 1, "flash", 64, 0.30, 0.29),
        (1024, 18, 8192, 4, "cudnn", 64, 0.42, 0.36),
        (1024, 18, 32768, 1, "flash3", 128, 0.50, 0.46),  # 0.465
    ],
)
def test_the_h200_gives_the_model_flop_utilisation_of_its_published_rates(width, depth, tokens, samples, backend, head_width, fused, eager):
    work = dit_work(width, depth, tokens, samples)
    for spread, wanted in ((1.0, fused), (EAGER, eager)):
        assert mfu(work.train_flop, train_floor(work, H200, backend, head_width, spread).seconds, H200) == pytest.approx(wanted, abs=0.0056)


def test_utilisation_counts_three_forwards_whatever_the_kernels_recompute():
    assert Work(10.0, 4.0, 0.0).train_flop == 42.0
    assert mfu(42.0, 2.0, ONE) == 21.0


def test_a_device_without_a_row_and_an_attention_without_a_rate_are_named():
    assert known_hardware("NVIDIA H200") is H200
    assert known_hardware("something else") is None
    with pytest.raises(ValueError, match=r"attention by triton with heads of 8 has no rate for one: only sdpa x 8"):
        train_floor(Work(1.0, 1.0, 1.0), ONE, "triton", 8)
