"""LPIPS from a folder: the published formula over torchvision's layer numbers, and files that do not fit are refused by name."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from training.lpips import Lpips

WIDTHS = (4, 6, 8, 8, 10)
# The layers of torchvision's `features`, written down a second time as torchvision builds them: a width, "M" for a pooling.
VGG16 = (0, 0, "M", 1, 1, "M", 2, 2, 2, "M", 3, 3, 3, "M", 4, 4, 4, "M")
VGG16_TAPS, ALEX_TAPS = (3, 8, 15, 22, 29), (1, 4, 7, 9, 11)


def stack(network: str) -> nn.Sequential:
    torch.manual_seed(0)
    if network == "alex":
        a, b, c, d, e = WIDTHS
        return nn.Sequential(
            *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, d, 3, padding=1), nn.ReLU(), nn.Conv2d(d, e, 3, padding=1), nn.ReLU()),
        )
    layers, before = [], 3
    for entry in VGG16:
        if isinstance(entry, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(before, WIDTHS[entry], 3, padding=1), nn.ReLU()]
            before = WIDTHS[entry]
    return nn.Sequential(*layers)


def write(folder, network: str = "vgg16") -> tuple[nn.Sequential, list[torch.Tensor]]:
    model, heads = stack(network), [torch.rand(1, width, 1, 1) for width in WIDTHS]
    named = {f"features.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    save_file(named | {"classifier.6.bias": torch.zeros(3)}, folder / "features.safetensors")
    save_file({f"lin{number}.model.1.weight": head for number, head in enumerate(heads)}, folder / "heads.safetensors")
    return model, heads


def lpips(folder, network: str = "vgg16", **changes) -> Lpips:
    return Lpips(**({"weight": 0.1, "path": str(folder), "network": network, "widths": WIDTHS, "sha256": None} | changes))


def clips(seed: int, count: int = 2, frames: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, frames, 32, 40, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


@torch.no_grad()
@pytest.mark.parametrize("network", ["vgg16", "alex"])
def test_it_is_the_published_distance(tmp_path, network):
    model, heads = write(tmp_path, network)
    taps = VGG16_TAPS if network == "vgg16" else ALEX_TAPS
    got = lpips(tmp_path, network)(clips(0), clips(1))
    for number, (one, other) in enumerate(zip(clips(0), clips(1), strict=True)):
        want = 0.0
        for frame in range(2):
            pair = torch.stack([one[:, frame], other[:, frame]])
            x = (pair - torch.tensor([-0.030, -0.088, -0.188]).reshape(3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).reshape(3, 1, 1)
            heads_left = iter(heads)
            for layer, module in enumerate(model):
                x = module(x)
                if layer in taps:
                    unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                    want += float(((unit[0] - unit[1]).square() * next(heads_left)[0]).sum(dim=0).mean()) / 2
        assert float(got[number]) == pytest.approx(want, rel=1e-4)


def test_clips_add_up_and_only_the_reconstruction_is_moved(tmp_path):
    write(tmp_path)
    model, result = lpips(tmp_path), clips(1).requires_grad_()
    whole = model(clips(0), result)
    assert torch.allclose(whole[1:], model(clips(0)[1:], result[1:]), rtol=1e-5)
    whole.sum().backward()
    assert result.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())
    assert float(model(clips(0), clips(0)).abs().max()) == 0


def test_weights_are_held_to_their_sha256(tmp_path):
    write(tmp_path)
    digest = lpips(tmp_path).sha256
    assert lpips(tmp_path, sha256=digest).sha256 == digest
    with pytest.raises(ValueError, match=rf"sha256 {digest}, wanted 00"):
        lpips(tmp_path, sha256="00")


@pytest.mark.parametrize(
    ("network", "widths", "says"),
    [
        ("alex", WIDTHS, r"features\.safetensors lacks features\.3\.weight"),
        ("vgg16", (4, 6, 8, 8, 12), r"features\.24\.weight of shape \(10, 8, 3, 3\), wanted \(12, 8, 3, 3\)"),
    ],
)
def test_other_weights_are_refused_by_name_and_shape(tmp_path, network, widths, says):
    write(tmp_path)
    with pytest.raises(ValueError, match=says + r".*Set objective\.perceptual\.path"):
        lpips(tmp_path, network, widths=widths)


def test_a_damaged_a_missing_and_a_too_full_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no features\.safetensors. Set objective\.perceptual\.path"):
        lpips(tmp_path)
    _, heads = write(tmp_path)
    named = {f"lin{number}.model.1.weight": head for number, head in enumerate(heads)}
    save_file(named | {"lin5.model.1.weight": torch.zeros(1)}, tmp_path / "heads.safetensors")
    with pytest.raises(ValueError, match=r"heads\.safetensors has lin5\.model\.1\.weight, which is not wanted"):
        lpips(tmp_path)
    save_file(named | {"lin0.model.1.weight": torch.full((1, 4, 1, 1), float("nan"))}, tmp_path / "heads.safetensors")
    with pytest.raises(ValueError, match=r"lin0\.model\.1\.weight that are not finite"):
        lpips(tmp_path)
    (tmp_path / "heads.safetensors").write_bytes(b"\x80\x02ctorch")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        lpips(tmp_path)


def test_a_clip_that_is_too_small_is_refused_with_both_sizes(tmp_path):
    write(tmp_path, "alex")
    with pytest.raises(ValueError, match="16x40 px is too small for LPIPS, which needs 31"):
        lpips(tmp_path, "alex")(torch.zeros(1, 3, 1, 16, 40), torch.zeros(1, 3, 1, 16, 40))
    assert torch.isfinite(lpips(tmp_path, "alex")(torch.zeros(1, 3, 1, 31, 40), torch.ones(1, 3, 1, 31, 40))).all()


def test_flops_agree_with_the_counter(tmp_path):
    from torch.utils.flop_counter import FlopCounterMode

    write(tmp_path)
    model = lpips(tmp_path)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(clips(0, 1), clips(1, 1))
    assert model.flops(2, 32, 40) * 2 / 3 == pytest.approx(counter.get_total_flops(), rel=0.01)
