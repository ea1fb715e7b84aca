"""Before a run: what it will be, for the paper's settings too, without data, GPU or network."""

import pandas as pd
import pytest

from cdlib import __main__
from cdlib.base import params, paths
from cdlib.cli import bench
from cdlib.data import design

PAPERS = {
    "cifar20": ("contributors      20", "images            10,000", "35,746,307 -> 19,851,157 pruned", "estimated work    2,"),
    "celeba_hq": ("contributors      50", "images            895", "274,056,163 -> 70,926,419 pruned", "estimated work    4,"),
    "artbench": ("contributors      258", "images            5,000", "51,019,776 -> 25,5", "estimated work    4,"),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "_released"])
@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings_are_checked_without_data(name, variant, capsys, scratch):
    file = paths.root() / "params" / f"{name}{variant}.yaml"
    assert __main__.main(["check", str(file), "--without-data"]) == 0
    told = capsys.readouterr().out
    assert all(words in told for words in PAPERS[name]), told
    assert "GPU hours" in told and "Table 2" in told
    assert not scratch.exists()


@pytest.mark.parametrize("name", PAPERS)
def test_missing_data_is_refused_in_one_line_that_names_the_parameter(name, capsys, scratch):
    file = paths.root() / "params" / f"{name}.yaml"
    assert __main__.main(["check", str(file), "--set", "data=nowhere"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "data: 'nowhere'" in line and str(file) in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["digits", "--set", "model=unet_16x16"], "model: unet_16x16: images of digits are 1 x 8 x 8"),
        (["artbench", "--without-data", "--set", "side_px=64"], "side_px: 64: images of artbench are 3 x 64 x 64"),
    ],
)
def test_images_that_the_model_does_not_draw_are_refused_in_one_line(arguments, told, capsys, scratch):
    assert __main__.main(["check", str(paths.params(arguments[0])), *arguments[1:]]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert told in line and "draws 3 x" in line


def test_a_released_file_differs_from_the_papers_where_it_says_so():
    def differing(name):
        ours, released = (params.load(paths.root() / "params" / f"{name}{v}.yaml") for v in ("", "_released"))
        return {k for k in ours if ours[k] != released[k]} - {"name", "n_full_seeds", "n_empty_seeds"}

    assert differing("cifar20") == {"classes", "batch_size", "timesteps", "ema", "damping", "influence_sum", "gradient_noise"}
    assert differing("celeba_hq") == {
        "noise_schedule",
        "batch_size",
        "horizontal_flip",
        "timesteps",
        "ema",
        "assignment",
        "precision",
        "damping",
        "influence_sum",
        "gradient_noise",
        "embedding_distance",
    }
    warm_up = {"prune_warmup_steps", "finetune_warmup_steps", "finetune_lr"}
    assert differing("artbench") == {*warm_up, "precision", "damping", "similarity_max", "n_counterfactual_seeds"}


def test_models_that_are_not_trained_are_priced_by_their_images(tiny):
    tiny |= {"n_images": 10, "sampling_steps": 4, "n_empty_seeds": 50}
    each = pd.DataFrame({"train": {"full": 1e3, "sparse": 1e3}, "sample": {"full": 1.0, "sparse": 0.5}})
    assert bench.by_procedure(tiny, each, 80)["untrained"] == 40
    assert design.n_planned(tiny)["untrained"] == 50 + 1  # and what unlearning nobody leaves
    more = [bench.total(tiny | {"n_empty_seeds": n, "executor": "serial"}, each, 0, 80) for n in (50, 60)]
    assert more[1] - more[0] == 10 * 40


def test_bench_prints_steps_and_images_of_both_models(capsys, scratch):
    assert __main__.main(["bench", str(paths.params()), "--steps", "1"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("digits.yaml: unet_8x8 on cpu, fp32")
    assert told[2].split()[:2] == ["full", "118,289"] and told[3].split()[:2] == ["sparse", "65,257"]
    assert all(float(number) > 0 for line in told[2:4] for number in line.split()[2:])
    assert "retrain / sparse_finetune" in told[5]
    assert not scratch.exists()
