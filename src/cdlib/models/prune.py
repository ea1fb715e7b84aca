"""Structured magnitude pruning of a U-Net, how a pruned one is built again, and pruning of LoRA by rank.

Channels that depend on each other (through skips, concatenations, normalisation) form groups, which Torch-Pruning's
dependency graph finds; in each group the same fraction of channels is removed, those of least magnitude.

Source: section 3.2; Han et al. 2015; Fang et al. 2024 (dependency graph).
"""

import math

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from cdlib.base.errors import Refused

PRUNED = (nn.Conv2d, nn.Linear)
MAX_WIDTH = 65536


def n_removed(channels: int, blocks: int, ratio: float) -> int:
    """How many of `channels` are removed: the same number from each of `blocks` equal blocks, rounded down.

    Floor rule: n = channels - floor(channels (1 - ratio)), then floor(n / blocks) from each block. It gives the paper's
    19.8M of 35.7M parameters; rounding up, as Torch-Pruning does since 1.4, gives 13.9M.
    """
    removed = channels - int(channels * (1 - ratio))
    return removed // blocks * blocks


def _blocks(group, heads: dict) -> int:
    """In how many equal blocks a group's channels lie: the groups of its GroupNorms, the heads of its attention.

    heads    number of heads of each layer that makes queries, keys or values
    """
    found = [dep.target.module.num_groups for dep, _ in group if isinstance(dep.target.module, nn.GroupNorm)]
    return math.lcm(*found, heads.get(group[0].dep.target.module, 1))


def _magnitude(group, channels: int) -> torch.Tensor:
    """Squared L2 norm of each channel's weights, averaged over the layers of the group, float [channels]."""
    import torch_pruning as tp  # only where models are pruned: it takes a second

    total, layers = torch.zeros(channels), 0
    for dep, index in group:
        layer, where = dep.target.module, getattr(index, "idxs", index)
        if not isinstance(layer, PRUNED) or len(where) != channels:
            continue
        outgoing = dep.handler in (tp.prune_conv_out_channels, tp.prune_linear_out_channels)
        weight = layer.weight.detach().transpose(0, 0 if outgoing else 1).flatten(1)
        total += weight[where].pow(2).sum(1).cpu()
        layers += 1
    return total / max(layers, 1)


def _least(magnitude: torch.Tensor, blocks: int, removed: int) -> list[int]:
    """The channels to remove: as many of least magnitude from each block."""
    if not removed:
        return []
    each = magnitude.view(blocks, -1).argsort(dim=1)[:, : removed // blocks]
    start = torch.arange(blocks)[:, None] * (len(magnitude) // blocks)
    return sorted((each + start).flatten().tolist())


def prune(unet: nn.Module, ratio: float, example: tuple, keep: tuple = ("conv_out",)) -> nn.Module:
    """Remove `ratio` of the channels of each group of layers, in place.

    ratio      fraction removed, 0 <= ratio < 1, before rounding down to whole blocks
    example    inputs of one forward pass, for the dependency graph
    keep       names of layers whose outputs stay

    Differs: the released code trusts torch_pruning 1.3.2 for the rounding; here the rule is written out (`n_removed`).
    """
    import torch_pruning as tp

    unet.eval()
    graph = tp.DependencyGraph().build_dependency(unet, example_inputs=example)
    heads = {layer: a.heads for a in unet.modules() if isinstance(a, Attention) for layer in (a.to_q, a.to_k, a.to_v)}
    ignored = [unet.get_submodule(name) for name in keep]
    for group in graph.get_all_groups(ignored_layers=ignored, root_module_types=list(PRUNED)):
        channels = len(group[0].idxs)
        blocks = _blocks(group, heads)
        removed = _least(_magnitude(group, channels), blocks, n_removed(channels, blocks, ratio))
        if removed:
            root, handler = group[0].dep.target.module, group[0].dep.handler
            graph.get_pruning_group(root, handler, removed).prune()
    synchronise(unet)
    return unet


def synchronise(unet: nn.Module):
    """Set what diffusers' modules remember of their widths to what their layers have."""
    for module in unet.modules():
        if isinstance(module, ResnetBlock2D) and (sampler := module.upsample or module.downsample):
            sampler.channels = module.conv1.in_channels
        if isinstance(module, (Upsample2D, Downsample2D)) and isinstance(module.conv, nn.Conv2d):
            module.channels, module.out_channels = module.conv.in_channels, module.conv.out_channels
        if isinstance(module, Attention):
            module.inner_dim = module.to_q.out_features
            module.scale = (module.inner_dim // module.heads) ** -0.5


def reshape(unet: nn.Module, tensors: dict):
    """Give a freshly built network the widths that saved tensors have, in place.

    tensors    name -> tensor, as in the network's state

    Raises Refused when a tensor is missing or its shape cannot belong to this network.
    """
    for name, module in unet.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear, nn.GroupNorm)):
            continue
        for kind, old in list(module.named_parameters(recurse=False)):
            new = tensors.get(f"{name}.{kind}")
            if new is None or new.ndim != old.ndim or new.shape[2:] != old.shape[2:] or max(new.shape) > MAX_WIDTH:
                raise Refused(f"{name}.{kind}: missing in the saved model, or of a shape that this network cannot have")
            setattr(module, kind, nn.Parameter(torch.empty_like(new), requires_grad=old.requires_grad))
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        else:
            module.num_channels = len(module.weight)
    synchronise(unet)


def lora(tensors: dict, ratio: float) -> dict:
    """LoRA matrices without the pairs of least magnitude, until the fraction `ratio` of their parameters is gone.

    tensors    name.lora_A.weight [r, in], name.lora_B.weight [out, r] -> the same with smaller r; a layer of rank 0 is left out

    The magnitude of pair i is (|A_i|^2 + |B_i|^2) / 2 over the mean of its layer; all layers' pairs are ranked together.
    Differs: the released code's `pruning_ratio` is the fraction kept, and it counts every pair as twice its input's width;
    here the sizes are exact.
    """
    layers = [name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")]
    pairs = []
    for layer in layers:
        a, b = tensors[f"{layer}.lora_A.weight"].float(), tensors[f"{layer}.lora_B.weight"].float()
        magnitude = (a.pow(2).sum(1) + b.pow(2).sum(0)) / 2
        pairs += [(m, layer, i, a.shape[1] + b.shape[0]) for i, m in enumerate((magnitude / magnitude.mean()).tolist())]
    left, limit, gone = sum(size for *_, size in pairs), (1 - ratio) * sum(size for *_, size in pairs), set()
    for _, layer, i, size in sorted(pairs, key=lambda pair: pair[0]):
        if left <= limit:
            break
        gone.add((layer, i))
        left -= size
    kept = {layer: [i for i in range(len(tensors[f"{layer}.lora_A.weight"])) if (layer, i) not in gone] for layer in layers}
    return {
        name: part
        for layer, rows in kept.items()
        if rows
        for name, part in (
            (f"{layer}.lora_A.weight", tensors[f"{layer}.lora_A.weight"][rows].clone()),
            (f"{layer}.lora_B.weight", tensors[f"{layer}.lora_B.weight"][:, rows].clone()),
        )
    }
