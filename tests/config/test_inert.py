"""Keys that nothing reads are refused, with what they belong to."""

from featlab.config.load import load_config
from featlab.errors import ConfigError
from featlab.methods.registry import reads_pairs, refuse_unread

LINEAR, MLP = {"pretrain.form": "linear"}, {"pretrain.form": "mlp"}
ON_PAIRS = "pretrain.form = joint or pretrain.form = mlp"
POSTER_TOO = f"{ON_PAIRS} or the method pft-poster"


def test_a_key_that_nothing_reads_is_refused(refused):
    for values, methods, key, belongs in (
        ({"pretrain.hidden": 8, **LINEAR}, ["pft"], "pretrain.hidden", ON_PAIRS),
        ({"pretrain.lr": 1e-3, **LINEAR}, ["pft", "shot"], "pretrain.lr", ON_PAIRS),
        ({"pretrain.dropout": 0.1, **LINEAR}, ["pft-poster"], "pretrain.dropout", ON_PAIRS),
        (
            {"pretrain.balance": 0.1, **MLP},
            ["pft"],
            "pretrain.balance",
            "joint and pretrain.learn_balance = false",
        ),
        (
            {"pretrain.penalty": 1, **MLP},
            ["pft"],
            "pretrain.penalty",
            "pretrain.form = joint or pretrain.form = linear",
        ),
        ({"pretrain.share": 0.5}, ["pft"], "pretrain.share", "pretrain.learn_share = false"),
        ({"pretrain.epochs": 3, **LINEAR}, ["pft"], "pretrain.epochs", "pretrain.form = mlp"),
        ({"pair.strategy": "cosine", **LINEAR}, ["pft"], "pair.strategy", POSTER_TOO),
        ({"pair.label_rule": "same", **LINEAR}, ["pft", "dsfda"], "pair.label_rule", POSTER_TOO),
        ({"features.dim": 8, "features.reduce": "none"}, ["pft"], "features.dim", "features.reduce = within"),
        ({"protocol.frames": 8, "protocol.scope": "dataset"}, ["shot"], "protocol.frames", "protocol.scope = person"),
    ):
        with refused(ConfigError, f"command line: {key} has no effect here: it belongs to", belongs):
            refuse_unread(load_config(None, values), methods)


def test_a_key_that_is_read_is_not():
    for values, methods in (
        ({"pair.strategy": "cosine", **LINEAR}, ["pft-poster"]),
        ({"pretrain.hidden": 8, "pretrain.dropout": 0, "pair.neighbours": 2, **MLP}, ["pft"]),
        ({"pretrain.penalty": 1, "pretrain.episodes": 1, "pretrain.expression": 1}, ["pft"]),
        ({"pretrain.epochs": 0, **LINEAR}, ["pft"]),
        ({"adapt.pft.lr": 1, "cache": "x.h5", "features.dim": 0, "features.reduce": "none", "head.lr": 1}, ["shot"]),
    ):
        refuse_unread(load_config(None, values), methods)
    config = load_config(None, {"pretrain.hidden": 8, "pair.label_rule": "same", **LINEAR})
    refuse_unread(config, ["pft"], [config, config.with_values(MLP, "ablation")])
    assert not reads_pairs(load_config(None, LINEAR), ["pft", "dsfda"])
    assert reads_pairs(load_config(None, LINEAR), ["pft", "pft-poster"])
    assert reads_pairs(load_config(None, MLP), [])
    assert reads_pairs(load_config(None), [])


def test_a_key_of_the_file_may_be_for_any_method_that_the_file_names(tmp_path, refused):
    path = tmp_path / "featlab.toml"
    path.write_text('[pretrain]\nform = "linear"\n[pair]\nstrategy = "cosine"\n[protocol]\nmethods = ["pft-poster"]\n')
    refuse_unread(load_config(path), ["pft"])
    path.write_text('[pretrain]\nform = "linear"\n[pair]\nstrategy = "cosine"\n[protocol]\nmethods = ["pft"]\n')
    with refused(ConfigError, f"{path}: pair.strategy has no effect here"):
        refuse_unread(load_config(path), ["pft"])


def test_an_option_that_is_no_more_is_refused_with_what_is_there_instead(refused):
    for key, word in (("objective", "pft-poster"), ("noise", "worse"), ("residual", "identity")):
        with refused(ConfigError, f"pretrain.{key} is no more", word):
            load_config(None, {f"pretrain.{key}": "1"})
