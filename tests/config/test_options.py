"""One declaration of an option gives its default, its check, what tuning tries, and whether it is read."""

import pickle
from dataclasses import asdict, dataclass, replace

from featlab.config.load import load_config
from featlab.config.options import Options, option, options_of, refuse_inert, search_values, with_options
from featlab.errors import ConfigError
from featlab.methods.registry import reads_pairs, refuse_unread


@dataclass(frozen=True)
class Base(Options):
    """Options of each kind."""

    lr: float = option(0.1, "Rate.", minimum=0, search=(0.1, 0.2))
    share: float = option(0.5, "Of it.", minimum=0, maximum=1)
    form: str = option("linear", "Which.", choices=("linear", "mlp"))
    names: tuple[str, ...] = option(("a",), "Some.", choices=("a", "b"))
    rate: float | None = option(None, "Another.", minimum=1)
    width: int = option(8, "Of the MLP.", minimum=1, search=(4, 8), only="form = mlp and lr = 0.1 or form = none")
    plain: int = 3
    widths: tuple[int, ...] = ()

    def check_together(self) -> None:
        if self.lr == self.share:
            raise ConfigError(f"{self.key('lr')} and {self.key('share')} are the same")


@dataclass(frozen=True)
class Own(Base):
    """Another default, other values to try; the rest as in the base class."""

    lr: float = option(0.3, search=(0.3, 0.4))
    form: str = "mlp"


def test_every_field_is_checked_and_named_with_its_section(refused):
    for given, words in (
        ({"lr": -1}, "my.lr = -1.0 must be at least 0"),
        ({"share": 1.5}, "my.share = 1.5 must be between 0 and 1"),
        ({"form": "liner"}, "my.form = 'liner' is not one of linear, mlp; did you mean 'linear'?"),
        ({"names": "a,c"}, "my.names = 'c' is not one of a, b"),
        ({"names": ""}, "my.names is empty; choose from a, b"),
        ({"rate": 0.5}, "my.rate = 0.5 must be at least 1"),
        ({"lr": 0.5}, "my.lr and my.share are the same"),
        ({"raet": 1}, "my.raet; did you mean 'rate'"),
        ({"plain": 1.5}, "my.plain = 1.5 must be a whole number"),
        ({"rate": "nan"}, "finite"),
        ({"widths": "8,wide"}, "my.widths"),
    ):
        for kind in (Base, Own):
            with refused(ConfigError, words):
                with_options(kind(), given, "my")


def test_options_are_converted_and_inherit_what_they_do_not_declare():
    given = {"plain": "5", "rate": "1.5", "names": "a,b", "widths": "8,16"}
    assert with_options(Base(), given, "my") == Base(plain=5, rate=1.5, names=("a", "b"), widths=(8, 16))
    assert with_options(Base(rate=1.0), {"rate": "none"}, "my").rate is None
    assert with_options(Base(), {}, "my") == Base()
    declared = options_of(Own)["lr"]
    assert (declared.help, declared.minimum, declared.search) == ("Rate.", 0, (0.3, 0.4))
    assert options_of(Own)["form"].choices == ("linear", "mlp")
    assert options_of(Base)["lr"].search == (0.1, 0.2)
    assert options_of(Base)["plain"].help is None


def test_the_section_is_handed_on_and_is_no_option_and_without_one_a_message_names_the_option_alone(refused):
    with refused(ConfigError, "lr = nan must be at least 0"):
        Base(lr=float("nan"))
    config = with_options(Base(), {"rate": "2"}, "my")
    assert replace(config, lr=0.2).section == pickle.loads(pickle.dumps(config)).section == "my"
    assert config == Base(rate=2.0)
    assert "where" not in asdict(config)
    assert "my" not in repr(config)


def test_tuning_searches_what_is_declared_and_read():
    assert search_values(Base()) == {"lr": (0.1, 0.2)}
    assert search_values(Base(form="mlp")) == {"lr": (0.1, 0.2), "width": (4, 8)}
    assert search_values(Own()) == {"lr": (0.3, 0.4)}


def test_an_option_that_others_make_inert_is_refused_if_it_was_given(refused):
    refuse_inert(Base(), ["lr", "plain"], "my")
    refuse_inert(Base(form="mlp"), ["width"], "my")
    with refused(ConfigError, "my.width has no effect here: it belongs to my.form = mlp and my.lr = 0.1 or my.form = "):
        refuse_inert(Base(), ["width"], "my")


def test_options_of_pft_belong_to_an_optimiser(refused):
    from featlab.methods import make_method

    for options, key, belongs in (
        ({"lr": 0.1}, "lr", "adapt.pft.optimiser = adam"),
        ({"batch": 4, "optimiser": "lbfgs"}, "batch", "adapt.pft.optimiser = adam"),
        ({"style": 2}, "style", "adapt.pft.optimiser = lbfgs or adapt.pft.optimiser = adam"),
    ):
        with refused(ConfigError, f"adapt.pft.{key} has no effect here: it belongs to {belongs}"):
            make_method("pft", {"pft": options})


LINEAR, MLP = {"pretrain.form": "linear"}, {"pretrain.form": "mlp"}
ON_PAIRS = "pretrain.form = joint or pretrain.form = mlp"
POSTER_TOO = f"{ON_PAIRS} or the method pft-poster"


def test_a_key_that_nothing_reads_is_refused(refused):
    for values, methods, key, belongs in (
        ({"pretrain.hidden": 8, **LINEAR}, ["pft"], "pretrain.hidden", ON_PAIRS),
        ({"pretrain.dropout": 0.1, **LINEAR}, ["pft-poster"], "pretrain.dropout", ON_PAIRS),
        ({"pretrain.balance": 0.1, **MLP}, ["pft"], "pretrain.balance", "joint and pretrain.learn_balance = false"),
        ({"pretrain.penalty": 1, **MLP}, ["pft"], "pretrain.penalty", "joint or pretrain.form = linear"),
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
    text = '[pretrain]\nform = "linear"\n[pair]\nstrategy = "cosine"\n[protocol]\nmethods = ["METHOD"]\n'
    path.write_text(text.replace("METHOD", "pft-poster"))
    refuse_unread(load_config(path), ["pft"])
    path.write_text(text.replace("METHOD", "pft"))
    with refused(ConfigError, f"{path}: pair.strategy has no effect here"):
        refuse_unread(load_config(path), ["pft"])


def test_an_option_that_is_no_more_is_refused_with_what_is_there_instead(refused):
    for key, word in (("objective", "pft-poster"), ("noise", "worse"), ("residual", "identity")):
        with refused(ConfigError, f"pretrain.{key} is no more", word):
            load_config(None, {f"pretrain.{key}": "1"})
