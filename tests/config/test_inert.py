"""Keys that nothing reads are refused, with what they belong to."""

from featlab.config.load import load_config
from featlab.errors import ConfigError
from featlab.methods.registry import reads_pairs, refuse_unread

MLP = {"pretrain.form": "mlp"}
POSTER = {"pretrain.objective": "poster"}
LINEAR = "pretrain.form = linear and pretrain.objective = anchored"
EITHER = "pretrain.form = mlp or pretrain.objective = poster or the method pft-poster"


def test_a_key_that_nothing_reads_is_refused(refused):
    for values, methods, key, belongs in (
        ({"pretrain.hidden": 8}, ["pft"], "pretrain.hidden", EITHER),
        ({"pretrain.lr": 1e-3}, ["pft", "shot"], "pretrain.lr", EITHER),
        ({"pretrain.dropout": 0.1}, ["pft-poster"], "pretrain.dropout", "pretrain.objective = poster"),
        ({"pretrain.noise": 0.1, **POSTER}, ["pft"], "pretrain.noise", "pretrain.form = mlp and pretrain.objective"),
        ({"pretrain.penalty": 1, **MLP}, ["pft"], "pretrain.penalty", LINEAR),
        ({"pretrain.episodes": 2, **POSTER}, ["pft"], "pretrain.episodes", LINEAR),
        ({"pretrain.form": "mlp", **POSTER}, ["pft"], "pretrain.form", "pretrain.objective = anchored"),
        ({"pretrain.epochs": 3}, ["pft"], "pretrain.epochs", "pretrain.form = mlp"),
        ({"pair.strategy": "cosine"}, ["pft"], "pair.strategy", EITHER),
        ({"pair.label_rule": "same"}, ["pft", "dsfda"], "pair.label_rule", EITHER),
        ({"features.dim": 8, "features.reduce": "none"}, ["pft"], "features.dim", "features.reduce = within"),
        ({"protocol.frames": 8, "protocol.scope": "dataset"}, ["shot"], "protocol.frames", "protocol.scope = person"),
    ):
        with refused(ConfigError, f"command line: {key} has no effect here: it belongs to", belongs):
            refuse_unread(load_config(None, values), methods)


def test_a_key_that_is_read_is_not():
    for values, methods in (
        ({"pretrain.hidden": 8, "pair.strategy": "cosine"}, ["pft-poster"]),
        ({"pretrain.hidden": 8, "pretrain.noise": 0, "pair.neighbours": 2, **MLP}, ["pft"]),
        ({"pretrain.dropout": 0, "pretrain.style": 1, **POSTER}, []),
        ({"pretrain.penalty": 1, "pretrain.episodes": 1, "pretrain.epochs": 0, "pretrain.expression": 1}, ["pft"]),
        ({"adapt.pft.lr": 1, "cache": "x.h5", "features.dim": 0, "features.reduce": "none", "head.lr": 1}, ["shot"]),
    ):
        refuse_unread(load_config(None, values), methods)


def test_a_key_of_the_file_may_be_for_any_method_that_the_file_names(tmp_path, refused):
    path = tmp_path / "featlab.toml"
    path.write_text('[pretrain]\nhidden = 8\n[protocol]\nmethods = ["pft-poster"]\n')
    refuse_unread(load_config(path), ["pft"])
    path.write_text('[pretrain]\nhidden = 8\n[protocol]\nmethods = ["pft"]\n')
    with refused(ConfigError, f"{path}: pretrain.hidden has no effect here"):
        refuse_unread(load_config(path), ["pft"])


def test_a_run_that_changes_the_form_itself_reads_the_keys_of_that_form():
    config = load_config(None, {"pretrain.hidden": 8, "pair.label_rule": "same"})
    refuse_unread(config, ["pft"], [config, config.with_values(MLP, "ablation")])


def test_pairs_are_read_by_an_mlp_and_by_the_poster():
    assert not reads_pairs(load_config(None), ["pft", "dsfda"])
    assert reads_pairs(load_config(None), ["pft", "pft-poster"])
    assert reads_pairs(load_config(None, MLP), [])
    assert reads_pairs(load_config(None, POSTER), [])
