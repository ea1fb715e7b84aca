"""Parameters: every bad input is one line that says what to change, before anything is written."""

import numpy as np
import pytest
import yaml
from diffusers import DDIMScheduler

from cdlib import __main__, store
from cdlib.base import params, paths, registry
from cdlib.base.errors import Refused
from cdlib.cli import command, run
from cdlib.data import design
from cdlib.models import families
from cdlib.store import cells

FILES = sorted((paths.root() / "params").glob("*.yaml"))

# What the file says, and what the line on standard error must name: key, value, what is allowed.
BAD = {
    "unknown key": ("n_image: 512", ["n_image: 512", "no notebook reads this name", "did you mean n_images?"]),
    "unknown key, unlike any": ("zzz: 1", ["zzz: 1", "no notebook reads this name", "digits.yaml"]),
    "1e-4": ("train_lr: 1e-4", ["train_lr: '1e-4'", "must be a valid number", "write 1.0e-04"]),
    "1e3 for a count": ("train_steps: 1e3", ["train_steps: '1e3'", "must be a valid integer"]),
    "negative count": ("n_coalitions: -1", ["n_coalitions: -1", "greater than or equal to 1"]),
    "zero steps": ("train_steps: 0", ["train_steps: 0", "greater than or equal to 1"]),
    "alpha 0": ("alphas: [0.5, 0.0]", ["alphas.1: 0.0", "greater than 0"]),
    "alpha 1": ("alphas: [1.0]", ["alphas.0: 1.0", "less than 1"]),
    "alpha of nobody": ("alphas: [0.01, 0.5]", ["alphas: [0.01, 0.5]", "0.01 of 20 contributors is nobody", "at least 0.05"]),
    "no alpha 0.5": ("alphas: [0.25]", ["alphas: [0.25]", "0.5 must be one of them"]),
    "a method there is not": ("compared: [Foo]", ["compared.0: 'Foo'", "Leave-one-out (LOO)"]),
    "a method for other runs": (
        "compared: [CLIP similarity (max)]",
        ["compared: ['CLIP similarity (max)']", "CLIP similarity (max) needs embedding: clip_b32"],
    ),
    "a method without its coalitions": (
        "n_finetune: 0\ncompared: [FT Shapley]",
        ["compared: ['FT Shapley']", "FT Shapley needs n_finetune of at least 8"],
    ),
    "a method with too few coalitions": (
        "n_retrain: 4\ncompared: [Retraining Shapley]",
        ["compared: ['Retraining Shapley']", "Retraining Shapley needs n_retrain of at least 8"],
    ),
    "warm-up as long as the training": (
        "train_schedule: constant\ntrain_steps: 9\ntrain_warmup_steps: 9",
        ["train_warmup_steps: 9", "less than train_steps (9)"],
    ),
    "warm-up longer than the fine-tuning": (
        "finetune_schedule: cosine\nfinetune_steps: 200\nfinetune_warmup_steps: 500",
        ["finetune_warmup_steps: 500", "less than finetune_steps (200)"],
    ),
    "warm-up longer than the pruning": (
        "prune_schedule: constant\nprune_steps: 5\nprune_warmup_steps: 6",
        ["prune_warmup_steps: 6", "less than prune_steps (5)"],
    ),
    "one cycle of one step": ("prune_steps: 1", ["prune_steps: 1", "one_cycle of a single step", "at least 2"]),
    "one cycle of one pass": ("train_epochs: 1", ["train_epochs: 1", "one_cycle of a single step", "at least 2"]),
    "FID of one image": (
        "property: fid\nfeature: pooled_pixels\nembedding: pooled_pixels\nfid_embedding: pooled_pixels\nn_unlearn: 0\n"
        "n_images: 1\ncompared: []",
        ["n_images: 1", "at least 2"],
    ),
    "KID of one image": ("also: [kid/pooled_pixels]\nn_unlearn: 0\nn_images: 1", ["n_images: 1", "at least 2"]),
    "unlearning judged by one image": ("n_images: 1", ["n_images: 1", "at least 2"]),
    "a fraction of nobody": ("remove_fraction: 0.01", ["remove_fraction: 0.01", "at least 1 of 20"]),
    "more owners than letters": (
        "owners_per_class: [27]\nimages_per_contributor: 5\nn_coalitions: 60\nn_paper_coalitions: 60",
        ["owners_per_class: 27", "at most 26"],
    ),
    "501 steps": ("sampling_steps: 501", ["sampling_steps: 501", "timestep 500 of 1000", "must be 500 or 991"]),
    "150 steps": ("sampling_steps: 150", ["sampling_steps: 150", "timestep 894 of 1000", "must be 125 or 166"]),
    "13 steps": ("sampling_steps: 13", ["sampling_steps: 13", "timestep 912 of 1000", "must be 12 or 14"]),
    "one step": ("sampling_steps: 1", ["sampling_steps: 1", "timestep 0 of 1000", "must be 2"]),
    "owners than images": ("images_per_contributor: 59", ["images_per_contributor 59", "digit 8", "at most 58"]),
    "one contributor": ("owners_per_class: [1]", ["owners_per_class: [1]", "at least 2 contributors"]),
    "no owner": ("owners_per_class: [1, 0]", ["owners_per_class.1: 0", "greater than or equal to 1"]),
    "coalitions than unknowns": ("n_coalitions: 39", ["n_coalitions: 39", "at least 40 for 20 contributors"]),
    "few of the paper's draws": ("n_paper_coalitions: 10", ["n_paper_coalitions: 10", "at least 40 or 0"]),
    "alphas twice": ("alphas: [0.5, 0.5]", ["alphas: [0.5, 0.5]", "once"]),
    "3 retrainings": ("n_retrain: 3", ["n_retrain: 3", "at least 4 or 0"]),
    "2 fine-tunings": ("n_finetune: 2", ["n_finetune: 2", "at least 4 or 0"]),
    "2 test coalitions": ("n_subsets: 2", ["n_subsets: 2", "at least 3 or 0"]),
    "LOO seeds": ("n_loo_seeds: 9\nn_full_seeds: 3", ["n_loo_seeds: 9", "at most n_full_seeds (3)"]),
    "an embedding that nobody trains": (
        "feature: inception_v3",
        ["embedding: digits_embedding", "needs feature: digits_classifier", "pooled_pixels"],
    ),
    "fraction 1": ("pruning_ratio: 1.0", ["pruning_ratio: 1.0", "less than 1"]),
    "text for a number": ("n_images: many", ["n_images: 'many'", "must be a valid integer"]),
    "number in quotes": ("n_images: '64'", ["n_images: '64'", "must be a valid integer"]),
    "number with a point": ("n_images: 64.5", ["n_images: 64.5", "must be a valid integer"]),
    "yes for a number": ("n_images: yes", ["n_images: True", "must be a valid integer"]),
    "number for yes": ("horizontal_flip: 1", ["horizontal_flip: 1", "must be a valid boolean"]),
    "nothing": ("n_images:", ["n_images: None", "must be a valid integer"]),
    "one value for a list": ("alphas: 0.5", ["alphas: 0.5", "must be a valid list"]),
    "not a number": ("train_lr: .nan", ["train_lr: nan", "must be a finite number"]),
    "infinite": ("train_lr: .inf", ["train_lr: inf", "must be a finite number"]),
    "unknown model": ("model: unet_9x9", ["model: 'unet_9x9'", "must be one of unet_8x8, unet_16x16"]),
    "unknown schedule": ("train_schedule: linear", ["train_schedule: 'linear'", "'constant', 'cosine' or 'one_cycle'"]),
    "an address that is none": ("ray_address: ray://host", ["ray_address: 'ray://host'", "auto"]),
    "half a GPU more": (
        "executor: ray\ngpus_per_coalition: 1.5",
        ["gpus_per_coalition: 1.5", "at most 1, or, with executor: ray, a whole number"],
    ),
    "two GPUs for a process": ("gpus_per_coalition: 2.0", ["gpus_per_coalition: 2.0", "with executor: ray"]),
    "no GPU for each": ("gpus_per_coalition: 0.0", ["gpus_per_coalition: 0.0", "greater than or equal to 0.01"]),
    "a GPU that is Ray's to choose": (
        "executor: ray\ndevice: cuda:1",
        ["device: cuda:1", "Ray chooses the GPUs", "auto, cpu or cuda"],
    ),
    "unknown device": ("device: tpu", ["device: 'tpu'", "auto|cpu|cuda"]),
    "name that is a path": ("name: ../digits", ["name: '../digits'", "[a-z0-9_]+"]),
    "not YAML": ("n_images: [1", ["not readable as YAML"]),
    "not text": (b"\xff\xfe\x00", ["not readable as YAML"]),
    "empty": ("", ["must hold lines `name: value`"]),
    "a list": ("- n_images", ["must hold lines `name: value`"]),
    "a number for a name": ("1: 2", ["must hold lines `name: value`"]),
}
BAD_SET = {
    "no value": ("n_images", ["--set n_images", "must be key=value"]),
    "no key": ("=3", ["--set =3", "must be key=value"]),
    "wrong type": ("n_images=many", ["n_images: 'many'", "must be a valid integer"]),
    "unknown key": ("n_image=3", ["n_image: 3", "did you mean n_images?"]),
    "not YAML": ("n_images=[1", ["--set n_images=[1", "not readable as YAML"]),
}


# What a notebook is given, and what the line names: the same as of a file.
GIVEN = {
    "nothing": ({"n_images": None}, "n_images: None: must be a valid integer"),
    "a dict": ({"n_images": {"a": 1}}, "n_images: {'a': 1}: must be a valid integer"),
    "a tuple": ({"alphas": (0.25, 0.5)}, "alphas: (0.25, 0.5): must be a valid list"),
    "a set": ({"also": set()}, "also: set(): must be a valid list"),
    "numpy's integer": ({"n_images": np.int64(5)}, "n_images: np.int64(5): must be a valid integer"),
    "numpy's truth": ({"compile": np.False_}, "compile: np.False_: must be a valid boolean"),
    "an array": ({"alphas": np.array([0.5])}, "alphas: array([0.5]): must be a valid list"),
    "an unknown name": ({"n_image": None}, "n_image: None: no notebook reads this name; did you mean n_images?"),
}
# What switches something off, and how many models are made then.
OFF = {
    "leave-one-out": ({"n_loo_seeds": 0}, 20 + 5),  # and the changes by its credits
    "the LDS": ({"n_subsets": 0}, 3 * 8 * 2),
    "the LDS, by its sizes": ({"alphas": []}, 3 * 8 * 2),
    "retraining": ({"n_retrain": 0}, 8),
    "fine-tuning": ({"n_finetune": 0}, 8),
    "counterfactuals": ({"compared": []}, 4 * 5),
    "counterfactuals, by their seeds": ({"n_counterfactual_seeds": 0}, 4 * 4),
    "gradients": ({"gradient_timesteps": 0}, 5),  # the changes by D-TRAK
}


@pytest.fixture
def refusal(scratch, capsys, monkeypatch):
    """Gives the one line with which a command refuses its input; no notebook may run, and nothing may be written."""
    monkeypatch.setattr(run, "_execute", lambda path, values, kernel: pytest.fail(f"{path.stem} was run"))

    def refused(*arguments):
        assert __main__.main([str(a) for a in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert not scratch.exists()
        return lines[0]

    return refused


@pytest.fixture
def file(tmp_path):
    """A parameter file, not there yet."""
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize(("content", "named"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(refusal, file, content, named):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = refusal("run", file)
    assert line.startswith(f"cdlib: {file}: ")
    assert not [part for part in named if part not in line], line


def test_warm_up_as_long_as_the_passes_is_refused(refusal, file):
    file.write_text("train_schedule: cosine\ntrain_epochs: 2\ntrain_warmup_steps: 36")
    assert refusal("run", file) == "cdlib: train_warmup_steps: 36: must be less than the 36 steps of train_epochs 2"


@pytest.mark.parametrize(("text", "named"), BAD_SET.values(), ids=BAD_SET)
def test_a_bad_change_is_refused_in_one_line(refusal, text, named):
    line = refusal("run", paths.params(), "--set", text)
    assert not [part for part in named if part not in line], line


@pytest.mark.parametrize("option", ["--only", "--from"])
def test_a_notebook_that_is_not_there_is_refused(refusal, option):
    line = refusal("run", paths.params(), option, "09")
    assert line.startswith("cdlib: 09: no such notebook; there are 01_contributors, ")


@pytest.mark.parametrize("verb", ["run", "status", "check", "report"])
def test_every_command_refuses_a_missing_file(refusal, file, verb):
    line = refusal(verb, file)
    assert line.startswith(f"cdlib: {file}: no such parameter file; there are ")
    assert "params/digits.yaml" in line


@pytest.mark.parametrize("verb", ["run", "status", "check", "report"])
def test_every_command_refuses_a_bad_value(refusal, file, verb):
    file.write_text("n_images: -1")
    assert refusal(verb, file).startswith(f"cdlib: {file}: n_images: -1: must be greater than or equal to 1")


def test_a_folder_is_no_parameter_file(refusal, tmp_path):
    assert refusal("run", tmp_path).startswith(f"cdlib: {tmp_path}: ")


def test_a_report_of_a_run_that_never_ran_says_how_to_run_it(refusal):
    assert refusal("report", paths.params()).endswith(f"nothing has run yet; first: cdlib run {paths.params()}")


def test_each_of_several_offences_has_its_line():
    with pytest.raises(Refused) as refused:
        params.check({"n_images": -1, "train_lr": -0.5}, "mine.yaml")
    assert [line.split(": ")[:3] for line in str(refused.value).splitlines()] == [
        ["mine.yaml", "train_lr", "-0.5"],
        ["mine.yaml", "n_images", "-1"],
    ]


@pytest.mark.parametrize("shipped", FILES, ids=lambda shipped: shipped.stem)
def test_every_parameter_file_of_the_repository_can_be_run(shipped):
    assert command.load(shipped, without_data=True).keys() == params.Params.model_fields.keys()


def test_a_name_left_out_has_the_value_of_digits_yaml(file):
    file.write_text("n_images: 3")
    digits = yaml.safe_load(paths.params().read_text())
    assert params.load(file) == digits | {"n_images": 3}


def test_a_change_on_the_command_line_comes_last(file):
    file.write_text("n_images: 3\ntrain_steps: 4")
    values = params.load(file, params.change("n_images=5") | params.change("alphas=[0.5, 0.75]"))
    assert (values["n_images"], values["train_steps"], values["alphas"]) == (5, 4, [0.5, 0.75])


def test_only_plain_names_of_a_notebook_are_parameters():
    namespace = {"n_images": 3, "alphas": [0.5], "_i1": "text", "np": pytest}
    assert cells.given(namespace) == {"n_images": 3, "alphas": [0.5]}


@pytest.mark.parametrize(("given", "said"), GIVEN.values(), ids=GIVEN)
def test_what_a_file_may_not_hold_a_notebook_is_not_given_either(given, said, scratch):
    with pytest.raises(Refused) as refused:
        store.open("06_lds", dict(given))
    assert str(refused.value) == f"notebooks/06_lds.ipynb: {said}"


@pytest.mark.parametrize(("changes", "fewer"), OFF.values(), ids=OFF)
def test_what_is_switched_off_is_not_planned(changes, fewer, scratch):
    with_it, without = (design.n_planned(params.check({"shown_fractions": [0.1, 0.4]} | c, "mine")) for c in ({}, changes))
    assert with_it.sum() - without.sum() == fewer
    assert (without > 0).all()


def test_in_a_kernel_only_what_the_parameters_cell_and_papermill_set_are_parameters():
    ran = ["", "n_images: int = 3\ntypo = 1", "# Parameters\nn_images = 4\nother = 5\n", "half = ", "mine = 6"]
    namespace = {"DEBUG_LEVEL": 3, "n_images": 4, "typo": 1, "other": 5, "mine": 6, "In": ran, "Out": {}}
    assert cells.given(namespace, {"n_images": 3}) == {"n_images": 4, "typo": 1, "other": 5}


def test_a_cell_that_runs_again_takes_no_later_name_for_a_parameter():
    namespace = {"n_images": 3}
    cells.given(namespace)
    namespace |= {"n_images": 4, "total": 1.5}
    assert cells.given(namespace) == {"n_images": 4}


def test_sampling_starts_in_the_last_hundredth_of_the_chain_or_a_stride_before_it():
    allowed = [n for n in range(1, 1001) if registry.starts_in_noise(n)]
    assert {2, 4, 10, 12, 15, 20, 25, 50, 100, 200, 250, 500, 1000} < set(allowed)
    for n in allowed:
        solver = DDIMScheduler()
        solver.set_timesteps(n)
        first = int(solver.timesteps[0])
        assert 990 <= first <= 999 if n >= 100 else 990 <= first + 1000 // n <= 1000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_files_sample_at_the_timesteps_that_they_always_had(file):
    steps = params.load(file)["sampling_steps"]
    starts = {4: [750, 500, 250], 12: [913, 830, 747], 15: [924, 858, 792], 100: [990, 980, 970]}
    solver = families.new(families.preset("unet_8x8") | {"noise_schedule": "linear"}, 0).solver(steps)
    assert solver.timesteps[:3].tolist() == starts[steps] and len(solver.timesteps) == steps
