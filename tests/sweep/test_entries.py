"""Reading sweep files."""

import pathlib

import pytest

from arith_jax.sweep.entries import expand, read_sweep

SMOKE = "configs/abacus_add.py:smoke"


def test_file_is_multiplied_out_in_its_order(write):
    path = write(
        """
        workdir = "runs/there"
        [overrides]
        "train.steps" = 5
        eval.diagonal = [6, 7]
        [[runs]]
        config = ["configs/abacus_{add,or}.py:smoke", "configs/ablation_add.py"]
        [[runs]]
        config = "configs/paper/addition.py:gpu,arch={16x1,8x2},pos={abacus+fire,nope}"
        seeds = [3, 1]
        [runs.overrides]
        optim.beta1 = {any = [0, 0.5]}
        model.positions = ["fire", "rope"]
        train.steps = 9
        """,
    )
    sweep = read_sweep(path)
    assert sweep.root == pathlib.Path("runs/there")
    names = [entry.name for entry in sweep.entries]
    assert len(names) == 3 + 2 * 2 * 2 * 2
    assert names[:3] == ["abacus_add_s0", "abacus_or_s0", "ablation_add_none_short_s0"]
    assert names[3:8] == [
        "paper_addition_16x1_abacus-fire_positions_fire-rope_beta1_0.0_steps_9_s3",
        "paper_addition_16x1_abacus-fire_positions_fire-rope_beta1_0.0_steps_9_s1",
        "paper_addition_16x1_abacus-fire_positions_fire-rope_beta1_0.5_steps_9_s3",
        "paper_addition_16x1_abacus-fire_positions_fire-rope_beta1_0.5_steps_9_s1",
        "paper_addition_16x1_nope_positions_fire-rope_beta1_0.0_steps_9_s3",
    ]
    assert sweep.entry(6).arguments(sweep.root) == [
        "--config=configs/paper/addition.py:gpu,arch=16x1,pos=abacus+fire",
        f"--workdir=runs/there/{names[6]}",
        "--config.eval.diagonal=(6, 7)",
        "--config.model.positions=('fire', 'rope')",
        "--config.optim.beta1=0.5",
        "--config.train.steps=9",
        "--config.seed=1",
    ]


def test_names_depend_on_their_own_entry_only(write):
    line = f"[[runs]]\nconfig = '{SMOKE}'\noverrides.train.steps = 5\n"
    more = "[overrides]\noptim.beta1 = 0.5\n[[runs]]\nconfig = 'configs/abacus_or.py'\n"
    (first,) = read_sweep(write(line)).entries
    _, second, third = read_sweep(write(f"{more}{line}seeds = [0, 7]\n")).entries
    assert first.name == second.name == "abacus_add_steps_5_s0"
    assert third.name == "abacus_add_steps_5_s7"
    assert second.overrides == {"optim.beta1": 0.5, "train.steps": 5}


def test_values_of_a_table_come_before_those_of_the_file(write):
    text = f"overrides.train.steps = 5\n[[runs]]\nconfig = '{SMOKE}'\n"
    (entry,) = read_sweep(write(text + "overrides.train.steps = 6\n")).entries
    assert entry.overrides == {"train.steps": 6}


def test_braces_are_written_out_as_in_a_shell():
    assert expand("", "x{a,b}y{1,2}") == ["xay1", "xay2", "xby1", "xby2"]
    assert expand("", "x.py:k=1") == ["x.py:k=1"]
    assert expand("", "x{a,}") == ["xa", "x"]


RUN = f"[[runs]]\nconfig = '{SMOKE}'\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "made.toml lists no runs; add a table"),
        ("runs = 3", r"made.toml: runs=3 must be a list"),
        ("runs = [3]", r"made.toml, \[\[runs\]\] 1: must be a table, not 3"),
        ("[[runs", "made.toml is not a TOML file: "),
        ("seed = 1", "key 'seed' is unknown; allowed: workdir, overrides, runs"),
        (f"workdir = 3\n{RUN}", "workdir=3 must be a string"),
        ("[[runs]]", r"\[\[runs\]\] 1: has no config; add config = "),
        ("[[runs]]\nconfig = 3", "config=3 must be a string or a list"),
        ("[[runs]]\nconfig = [3]", "config=3 must be a string"),
        ("[[runs]]\nconfig = 'x{a'", r"config='x\{a' has a brace without its partner"),
        ("[[runs]]\nconfig = '{a{b}}'", "or one inside another"),
        (
            "[[runs]]\nconfig = 'no.py'",
            "made.toml, .* 1, no.py: .*No such file .*no.py",
        ),
        (
            "[[runs]]\nconfig = 'configs/abacus_add.py:big'",
            "'big' is unknown; allowed: ",
        ),
        (f"{RUN}seed = 1", "1: key 'seed' is unknown; allowed: config, seeds, overrid"),
        (f"{RUN}seeds = 1", "seeds=1 must be a list"),
        (f"{RUN}seeds = []", r"seeds=\[\] makes no entry"),
        (f"{RUN}seeds = [true]", r"seeds=\[True\] must be whole numbers from 0"),
        (f"{RUN}seeds = [-1]", r"seeds=\[-1\] must be whole numbers from 0"),
        (f"{RUN}overrides.seed = 1", r"seed is no override; set seeds = \[1\]"),
        (f"{RUN}overrides.train.stps = 1", "train.stps is unknown; did you mean 'trai"),
        (f"{RUN}overrides.train.steps = 1.5", "train.steps=1.5 must be of type int, "),
        (f"{RUN}overrides.train.steps = true", "train.steps=True must be of type int"),
        (f"{RUN}overrides.eval.diagonal = 5", "eval.diagonal=5 must be of type list"),
        (
            f"{RUN}overrides.train.steps.any = 5",
            r"train.steps=\{any=5\} must be a list",
        ),
        (f"{RUN}overrides.train.steps.any = []", "must be a list of values"),
        (
            f"{RUN}overrides.train.steps = 1\noverrides.'train.steps' = 2",
            "train.steps is given twice",
        ),
        (f"{RUN}overrides.eval.name = 'x'", "an evaluation with a name does not train"),
        (f"overrides.train.steps.any = [1, 2]\n{RUN}", "belongs into .runs.overrides."),
        (f"{RUN}overrides.name = '{'x' * 99}'", "has 115 characters; allowed: 100"),
        (
            f"{RUN}{RUN}",
            r"entries 0 \(configs/abacus_add.py:smoke\) and 1 .* are both abacus_",
        ),
        (f"{RUN}seeds = [2, 3, 2]", "entries 0 .* and 2 .* are both abacus_add_s2"),
    ],
)
def test_bad_files_are_explained_in_one_line(text, message, tmp_path, write):
    with pytest.raises(ValueError, match=message) as caught:
        read_sweep(write(text))
    assert str(caught.value).startswith(str(tmp_path / "made.toml"))
    assert "\n" not in str(caught.value)


def test_index_out_of_range_is_refused(write):
    sweep = read_sweep(write(f"{RUN}seeds = [0, 1]"))
    assert sweep.entry(1).seed == 1
    for index in (-1, 2):
        with pytest.raises(
            ValueError, match=rf"={index}: .* 2 entries; allowed: 0 to 1"
        ):
            sweep.entry(index)
