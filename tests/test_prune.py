"""Structured pruning: the paper's sizes, the right channels, and a network that is rebuilt from its tensors."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from cdlib.base.errors import Refused
from cdlib.models import families, prune
from cdlib.models.procedures import Recipe
from cdlib.models.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(steps=1, lr=1e-3, schedule="constant", batch_size=4)


@pytest.fixture(scope="module")
def paper():
    """The paper's CIFAR U-Net, pruned. Not to be changed."""
    return pruned("ddpm_32x32")


@pytest.fixture
def small():
    """The U-Net of the digits, pruned."""
    return pruned("unet_8x8")


def fresh(name):
    """A preset with random weights."""
    return families.new(families.preset(name) | {"noise_schedule": "linear"}, 0)


def pruned(name, ratio=0.3):
    """A preset with random weights, pruned."""
    model = fresh(name)
    model.prune(ratio)
    return model


def output(model):
    """What the network predicts for some noise."""
    model.unet.eval()
    with torch.no_grad():
        x = torch.randn(1, *model.noise_shape(), generator=torch.Generator().manual_seed(0))
        return model.unet(x, torch.tensor([500])).sample


def rebuilt(model):
    """The same model from its tensors alone."""
    return families.restore(model.config, model.state())


def same(a, b):
    """Whether two models have equal weights and outputs, bit for bit."""
    states = a.state(), b.state()
    equal = states[0].keys() == states[1].keys() and all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    return equal and torch.equal(output(a), output(b))


def one_step(model):
    """The model after one step of training."""
    train(model, model.prepare(torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)), RECIPE, seed=0)
    return model


@pytest.mark.parametrize(
    ("channels", "blocks", "ratio", "removed"),
    [(128, 32, 0.3, 32), (256, 32, 0.3, 64), (512, 1, 0.3, 154), (256, 1, 0.3, 77), (32, 32, 0.3, 0), (10, 1, 0.0, 0)],
)
def test_the_floor_rule(channels, blocks, ratio, removed):
    assert prune.n_removed(channels, blocks, ratio) == removed


def test_the_papers_network_shrinks_to_the_papers_size(paper):
    assert paper.n_parameters() == 19_851_157
    widths = {name: module.weight.shape[0] for name, module in paper.unet.named_modules() if isinstance(module, nn.Conv2d)}
    assert (widths["conv_in"], widths["mid_block.resnets.0.conv1"], widths["conv_out"]) == (96, 192, 3)


def test_every_normalisation_group_keeps_equally_many_channels(paper):
    norms = [module for module in paper.unet.modules() if isinstance(module, nn.GroupNorm)]
    assert norms and all(norm.num_groups == 32 and norm.num_channels % 32 == 0 for norm in norms)


def test_what_modules_remember_of_their_widths_is_true(paper):
    modules = list(paper.unet.modules())
    resized = [m for m in modules if isinstance(m, Upsample2D | Downsample2D)]
    attention = [m for m in modules if isinstance(m, Attention)]
    assert len(resized) == 6 and len(attention) == 6
    assert all((m.channels, m.out_channels) == (m.conv.in_channels, m.conv.out_channels) for m in resized)
    assert {(m.inner_dim, m.to_q.out_features, m.scale) for m in attention} == {(179, 179, 179**-0.5)}


def test_attention_means_the_same_written_out(paper):
    fast, written_out = output(paper), rebuilt(paper)
    for module in written_out.unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    torch.testing.assert_close(output(written_out), fast, atol=1e-5, rtol=1e-4)


def test_a_pruned_network_with_attention_is_rebuilt_bit_for_bit(paper):
    assert same(rebuilt(paper), paper)


def test_a_pruned_network_is_saved_and_rebuilt_bit_for_bit(small, tmp_path):
    families.save(small, tmp_path / "small.safetensors", {})
    assert same(families.load(tmp_path / "small.safetensors"), small)


def test_a_rebuilt_network_trains_to_the_same_bits(small):
    other, before = rebuilt(small), output(small)
    assert same(one_step(other), one_step(small))
    assert not torch.equal(output(small), before)


def test_a_ratio_of_nothing_changes_nothing():
    assert same(pruned("unet_8x8", ratio=0.0), fresh("unet_8x8"))


def test_more_is_removed_with_a_larger_ratio():
    sizes = [pruned("unet_8x8", ratio).n_parameters() for ratio in (0.0, 0.3, 0.6)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


@pytest.mark.parametrize(
    ("norm", "dead", "ratio"),
    [(nn.Identity(), [2, 3, 7], 0.375), (nn.GroupNorm(2, 8), [1, 3, 4, 6], 0.5)],
    ids=["plain", "groups"],
)
def test_the_channels_of_least_magnitude_go(norm, dead, ratio):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.Conv2d(8, 2, 3))
    alive = [k for k in range(8) if k not in dead]
    with torch.no_grad():
        net[0].weight[dead] *= 1e-3
        net[2].weight[:, dead] *= 1e-3
    first, last = net[0].weight[alive].clone(), net[2].weight[:, alive].clone()
    prune.prune(net, ratio, (torch.zeros(1, 1, 8, 8),), keep=("2",))
    assert torch.equal(net[0].weight, first) and torch.equal(net[2].weight, last)


def test_as_many_go_from_each_normalisation_group_even_if_one_has_all_the_least():
    net = nn.Sequential(nn.Conv2d(1, 8, 1, bias=False), nn.GroupNorm(2, 8), nn.Conv2d(8, 1, 1))
    with torch.no_grad():
        net[0].weight[:, 0, 0, 0] = torch.arange(1, 9)
        net[2].weight.zero_()
    prune.prune(net, 0.5, (torch.zeros(1, 1, 2, 2),), keep=("2",))
    assert net[0].weight.flatten().tolist() == [3, 4, 7, 8]


def test_channels_that_do_nothing_are_not_missed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    with torch.no_grad():
        for tensor in (net[0].weight[::2], net[0].bias[::2], net[2].weight[:, ::2]):
            tensor.zero_()
    x = torch.randn(3, 1, 8, 8)
    before = net(x)
    prune.prune(net, 0.5, (x,), keep=("2",))
    assert net[0].out_channels == 4
    torch.testing.assert_close(net(x), before)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("conv_in.weight"),
        lambda tensors: tensors.update({"conv_in.bias": torch.zeros(16, 1)}),
        lambda tensors: tensors.update({"conv_in.weight": torch.zeros(16, 1, 5, 5)}),
        lambda tensors: tensors.update({"conv_in.weight": torch.empty(10**9, 1, 3, 3, device="meta")}),
    ],
    ids=["missing", "too many axes", "another kernel", "absurdly wide"],
)
def test_a_tensor_that_cannot_belong_is_refused(small, spoil):
    tensors = dict(small.state())
    spoil(tensors)
    with pytest.raises(Refused, match=r"^conv_in.(weight|bias): missing in the saved model, or of a shape"):
        prune.reshape(families.new(small.config, 0).unet, tensors)
