import json

import pytest

from featlab.config.load import Config, load_config, parse_settings
from featlab.config.sections import AdaptConfig, FeatureConfig, HeadConfig
from featlab.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Write featlab.toml and return its path."""

    def write_file(text):
        path = tmp_path / "featlab.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def test_a_flag_beats_the_file_and_the_file_beats_the_default(tmp_path, write):
    for path in (None, tmp_path / "nothing.toml", write("")):
        assert load_config(path) == Config()
    assert load_config(write("[head]\n[adapt.pft]\n")) == Config()
    path = write('cache = "faces.h5"\n[head]\nlr = 0.5\nepochs = 7\n')
    config = load_config(path, {"head.lr": "0.25", "protocol.seed": 3})
    assert (config.head.lr, config.head.epochs, config.protocol.seed) == (0.25, 7, 3)
    assert config.cache == "faces.h5"
    assert config.head.batch == HeadConfig().batch
    assert config.features == FeatureConfig()
    assert load_config(write(b"\xef\xbb\xbf[head]\nlr = 0.5\n")).head.lr == 0.5


def test_sections_and_keys_can_be_written_in_a_file_in_every_way_of_toml(write):
    path = write(
        """
        features = { dim = 3, reduce = "pca" }
        protocol.targets = 5
        protocol.sources = ["a", "b"]
        [head]
        noise = 1
        """
    )
    config = load_config(path)
    assert config.features == FeatureConfig(3, "pca")
    assert (config.protocol.targets, config.protocol.sources) == ("5", ("a", "b"))
    assert config.head.noise == 1.0
    assert isinstance(config.head.noise, float)


UNKNOWN_IN_FILE = {
    "[head]\nepoch = 3": ["head.epoch", "'epochs'"],
    "[heda]\nlr = 3": ["'heda'", "'head'"],
    "[heda]": ["'heda'", "'head'"],
    "lr = 3": ["'lr'", "sections: cache, features, head"],
    "head = 3": ["head is a section"],
    "[[head]]\nlr = 3": ["head is a section"],
    "[head.lr]\nx = 3": ["head.lr.x"],
    '[cache]\nfile = "x"': ["cache is a file name"],
    "[adapt]\nlr = 3": ["adapt.lr", "method, options"],
    "[adapt.options.pft]\nlr = 3": ["adapt.options.pft.lr", "adapt.<method>.<option>"],
}
UNKNOWN_FLAG = {
    "head.epoch": ["head.epoch", "did you mean 'epochs'"],
    "haed.lr": ["did you mean 'head'"],
    "head": ["write head.key = value"],
    "head.": ["write head.key = value"],
    "": ["sections:"],
    "adapt.pft.": ["adapt.<method>.<option>"],
    "adapt..lr": ["adapt.<method>.<option>"],
}


def test_an_unknown_key_is_refused_with_the_closest_known_one(write, refused):
    for text, words in UNKNOWN_IN_FILE.items():
        path = write(text)
        with refused(ConfigError, str(path), *words):
            load_config(path)
    for key, words in UNKNOWN_FLAG.items():
        with refused(ConfigError, "command line", *words):
            load_config(None, {key: "1"})


def test_what_is_no_toml_is_refused(write, tmp_path, refused):
    for text in ("[head\n", "head.lr = \n", "[head]\nlr = 1\nlr = 2", b"\xff\xfe", "lr: 3"):
        path = write(text)
        with refused(ConfigError, str(path), "not valid TOML"):
            load_config(path)
    with refused(ConfigError, str(tmp_path), "can't be read"):
        load_config(tmp_path)


KEPT = [
    ("head.epochs", "12", 12),
    ("head.epochs", 12.0, 12),
    ("head.lr", "1e-4", 1e-4),
    ("head.lr", 1, 1.0),
    ("pretrain.validation", "false", False),
    ("pretrain.validation", "No", False),
    ("pretrain.validation", "TRUE", True),
    ("pretrain.validation", True, True),
    ("protocol.methods", "a,b", ("a", "b")),
    ("protocol.methods", " a , b ,", ("a", "b")),
    ("protocol.methods", ["a", "b"], ("a", "b")),
    ("protocol.methods", "a", ("a",)),
    ("protocol.sources", "", ()),
    ("protocol.targets", 10, "10"),
    ("protocol.targets", "s1,s2", "s1,s2"),
    ("cache", "other.h5", "other.h5"),
]


def test_values_take_the_type_of_their_key():
    for key, given, kept in KEPT:
        value = load_config(None, {key: given})
        for name in key.split("."):
            value = getattr(value, name)
        assert value == kept, key
        assert type(value) is type(kept), key


OTHER_TYPE = [
    *(("head.epochs", value, "whole number") for value in (1.5, "1.5", "many", float("inf"), True, [3])),
    *(("head.lr", value, "a number") for value in ("fast", None)),
    *(("head.lr", value, "finite") for value in ("nan", float("inf"))),
    *(("pretrain.validation", value, "true or false") for value in ("maybe", 2)),
    ("protocol.methods", 3, "list"),
    *(
        (key, value, "text")
        for key, value in (("cache", True), ("protocol.methods", [["a"]]), ("protocol.targets", ["a"]))
    ),
    ("adapt.options", {}, "can't be set"),
]


def test_a_value_of_another_type_or_out_of_range_and_an_unknown_choice_are_refused(refused):
    for key, given, word in OTHER_TYPE:
        with refused(ConfigError, "command line", key, word):
            load_config(None, {key: given})
    for setting in OUT_OF_RANGE.split():
        key, value = setting.split("=")
        with refused(ConfigError, "command line", key, value):
            load_config(None, {key: value})
    for key, (value, close) in UNKNOWN_CHOICE.items():
        with refused(ConfigError, key, f"did you mean '{close}'"):
            load_config(None, {key: value})
    for key in ("pretrain.layers", "ablate.dims", "ablate.terms"):
        with refused(ConfigError, key, "empty"):
            load_config(None, {key: ""})


# BatchNorm has no variance of one row.
OUT_OF_RANGE = """
    features.dim=-1 head.bottleneck=0 head.epochs=0 head.batch=1 head.lr=-1e-09 head.label_smoothing=1.1 head.noise=-1
    pair.neighbours=0 pretrain.hidden=-1 pretrain.batch=1 pretrain.epochs=-1 pretrain.style=-0.1 pretrain.dropout=1.5
    pretrain.share=1.1 protocol.draws=0 protocol.seeds=0 protocol.gap=-1 protocol.smoothing=4
    protocol.smoothing=-3 protocol.frames=-1 protocol.contamination=-0.1 protocol.contamination=1.0
    protocol.source_limit=1
"""


UNKNOWN_CHOICE = {
    "features.reduce": ("whithin", "within"),
    "pair.strategy": ("landmarks", "landmark"),
    "pair.label_rule": ("diferent", "different"),
    "pretrain.form": ("line", "linear"),
    "pretrain.axis": ("vectors", "vector"),
    "pretrain.layers": ("embedding,botleneck", "bottleneck"),
    "plot.faces": ("photograph", "photographs"),
    "ablate.terms": ("stile", "style"),
}


def test_a_methods_table_is_kept_as_it_came_and_flags_come_on_top(write):
    path = write('[adapt]\nmethod = "pft"\n[adapt.pft]\nlr = 0.1\nlayers = ["a"]\n[adapt.shot]\nbeta = 2\n')
    config = load_config(path, {"adapt.pft.lr": "0.5", "adapt.nrc.k": "3"})
    assert config.adapt.method == "pft"
    options = {"pft": {"lr": "0.5", "layers": ["a"]}, "shot": {"beta": 2}, "nrc": {"k": "3"}}
    assert config.adapt.options == options
    config.with_values({"adapt.pft.lr": 2, "adapt.pft.k": 3}, "test")
    assert (config.adapt.options, AdaptConfig().options) == (options, {}), "the config it came from is left alone"


def test_a_config_goes_through_json_and_back_and_its_dict_is_a_copy():
    changed = load_config(None, {"cache": "x.h5", "features.dim": 3, "pretrain.layers": "bottleneck", **MORE})
    for config in (Config(), changed):
        data = json.loads(json.dumps(config.to_dict()))
        options = data["adapt"].pop("options")
        values = {"cache": data.pop("cache")}
        values |= {f"{section}.{key}": value for section, part in data.items() for key, value in part.items()}
        values |= {f"adapt.{method}.{key}": value for method, part in options.items() for key, value in part.items()}
        assert Config().with_values(values, "test") == config
    changed.to_dict()["adapt"]["options"]["pft"]["lr"] = 9
    assert changed.adapt.options == {"pft": {"lr": 0.5}}


MORE = {"pretrain.validation": "no", "protocol.sources": "a,b", "adapt.method": "shot", "adapt.pft.lr": 0.5}


def test_settings_are_split_at_the_first_equals_sign_and_need_a_key_and_a_value(refused):
    given = parse_settings(["head.lr=0.01", " cache = a=b.h5 ", "protocol.sources="])
    assert given == {"head.lr": "0.01", "cache": "a=b.h5", "protocol.sources": ""}
    assert load_config(None, parse_settings(["head.lr=1", "head.lr=2"])).head.lr == 2.0
    for item in ("head.lr", "", "=3", " = 3"):
        with refused(ConfigError, "--set", "key=value"):
            parse_settings([item])
